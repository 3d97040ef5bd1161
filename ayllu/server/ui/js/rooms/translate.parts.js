/** Pieces of the room Translate: one paragraph with its translation, and what came of a file. */

import { call } from "../api.js";
import { h, iconButton, textButton, toast } from "../dom.js";
import { explained, noted } from "../faults.js";
import { fileButton } from "../jobcard.js";
import { n, t } from "../words.js";

/** Why a person should look, and where the words come from. */
function facts(row, percent) {
  const says = row.notes.map((note) => (note.startsWith("in pieces") ? t("tr.note.pieces") : noted(note)));
  if (row.probability !== undefined && row.probability !== null) says.push(t("tr.probability", { percent: percent(row.probability) }));
  if (row.round_trip !== undefined && row.round_trip !== null) says.push(t("tr.back", { percent: percent(row.round_trip) }));
  return says.join(", ");
}

/** A paragraph: source and translation, the mark of doubt, and a way to correct it. */
export function resultRow(row, { both, percent }) {
  const words = h("p", { lang: row.to, class: "tr-words" }, row.translation);
  const why = facts(row, percent);
  const label = t(`tr.origin.${row.origin}`);
  const origin = label.startsWith("tr.") ? null : h("span", { class: "tr-origin" }, label);
  const known = row.alike && h("p", { class: "note" }, t("tr.alike", row.alike));
  const note = row.is_low ? h("p", { class: "note tr-why" }, t("tr.low", { why: why || t("tr.low.none") })) : null;
  const edit = iconButton("edit", t("tr.edit", { text: row.source.slice(0, 40) }), () => correct(row, target, words));
  const target = h("div", { class: "tr-target" }, words, edit, origin, note, known);
  const source = both ? h("p", { lang: row.from, class: "tr-source" }, row.source) : null;
  return h("article", { class: row.is_low ? "tr-row low" : "tr-row", title: row.is_low ? null : why }, source, target);
}

function correct(row, target, words) {
  const field = h("textarea", { rows: 3, value: row.translation, "aria-label": t("tr.edit", { text: row.source.slice(0, 40) }) });
  const save = textButton(
    t("tr.save"),
    async () => {
      try {
        await call("v1/translate/memory", { from: row.from, to: row.to, source: row.source, translation: field.value });
        Object.assign(row, { translation: field.value, is_low: false, origin: "person" });
        words.textContent = field.value;
        form.replaceWith(words);
        target.parentElement.classList.remove("low");
        target.querySelector(".tr-why")?.remove();
        toast(t("tr.saved"));
      } catch (error) {
        toast(t("tr.error", { why: error.message }));
      }
    },
    { class: "button small main" },
  );
  const form = h("div", { class: "tr-form" }, field, save);
  words.replaceWith(form);
  field.focus();
}

/** What came of each file of a job. */
export function fileReports({ files }, percent) {
  return files.map((one) => {
    if (one.error) return h("p", { class: "note wrong" }, t("tr.file.failed", { name: one.name, why: explained(one.error, { code: "unreadable" }) }));
    const memory = Object.entries(one.sentences ?? {}).reduce((sum, [how, count]) => sum + (how === "model" ? 0 : count), 0);
    const said = [t("tr.file.done", { name: one.name, n: n(one.segments) })];
    if (memory) said.push(t("tr.file.memory", { n: n(memory) }));
    if (one.n_low) said.push(t("tr.file.look", { n: n(one.n_low) }));
    const low = (one.low ?? []).map((row) =>
      h("li", {}, h("span", {}, row.source), h("span", { lang: one.to }, row.translation), h("span", { class: "note" }, facts(row, percent))),
    );
    return h(
      "div",
      { class: "tr-file" },
      h("p", {}, said.join("")),
      one.notes.map((note) => h("p", { class: "note" }, noted(note))),
      low.length > 0 && h("details", { class: "more" }, h("summary", {}, t("tr.file.low", { name: one.name })), h("ul", { class: "tr-low" }, low)),
      fileButton(one.file),
    );
  });
}
