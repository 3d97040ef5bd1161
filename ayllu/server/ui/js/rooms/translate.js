/** Translation: a text at once, paragraph by paragraph, and files as jobs. What the model was unsure of is marked. */

import { call } from "../api.js";
import { announce, copy, download, h, iconButton, textButton, toast } from "../dom.js";
import { dropZone } from "../dropzone.js";
import { jobList } from "../jobcard.js";
import { about, roomPage } from "../roompage.js";
import { addWords, language, n, t } from "../words.js";
import { fileReports, resultRow } from "./translate.parts.js";
import { WORDS } from "./translate.words.js";

addWords(WORDS);

const kept = { from: "", to: "", text: "", terms: "", check: false, both: true, bilingual: false, rows: [], files: [] };
const AT_ONCE = 16; // paragraphs of one call: the first ones are there while others are still asked
let asked = null;

const what = () =>
  (asked ??= call("v1/translate").catch((error) => {
    asked = null;
    throw error;
  }));
export const nameOf = (code) => new Intl.DisplayNames([language()], { type: "language" }).of(code);
const percent = (share) => `${n(share * 100)} %`;
const terms = () =>
  Object.fromEntries(
    kept.terms
      .split("\n")
      .map((line) => line.split("=").map((side) => side.trim()))
      .filter(([term]) => term)
      .map(([term, word = ""]) => [term, word]),
  );

function box(name, label) {
  const input = h("input", { type: "checkbox", checked: kept[name], onchange: () => (kept[name] = input.checked) });
  return { input, element: h("label", { class: "row check" }, input, h("span", {}, label)) };
}

function languages(onchange) {
  const from = h("select", { "aria-label": t("tr.from") });
  const to = h("select", { "aria-label": t("tr.to") });
  const changed = () => {
    [kept.from, kept.to] = [from.value, to.value];
    onchange();
  };
  const swap = iconButton("again", t("tr.swap"), () => {
    if (from.value) [from.value, to.value] = [to.value, from.value];
    else [from.value, to.value] = [to.value, language() === to.value ? "en" : language()];
    changed();
  });
  what().then(({ languages: codes }) => {
    const options = Object.keys(codes)
      .map((code) => [code, nameOf(code)])
      .sort((a, b) => a[1].localeCompare(b[1], language()));
    from.append(h("option", { value: "" }, t("tr.detect")));
    for (const select of [from, to]) select.append(...options.map(([code, name]) => h("option", { value: code }, name)));
    from.value = kept.from;
    to.value = kept.to;
    changed();
  }, wrong);
  from.addEventListener("change", changed);
  to.addEventListener("change", changed);
  return h("div", { class: "row languages" }, from, swap, to);
}

const wrong = (error) => toast(t("tr.error", { why: error.message }));

function measuredNote(element) {
  what().then(({ measured }) => {
    const sets = measured[`${kept.from || (kept.to === "zh" ? "en" : "zh")}-${kept.to}`];
    const list = Object.entries(sets ?? {}).map(([set, { chrf, chrf_low: low, chrf_high: high }]) =>
      t("tr.set", { set, chrf: n(chrf, 1), low: n(low, 1), high: n(high, 1) }),
    );
    element.textContent = sets ? t("tr.measured", { list: list.join(language() === "zh" ? "；" : ", ") }) : t("tr.unmeasured");
  }, () => {});
}

function textPanel(measured) {
  const field = h("textarea", { rows: 7, "aria-label": t("tr.text"), placeholder: t("tr.placeholder"), value: kept.text });
  field.addEventListener("input", () => (kept.text = field.value));
  field.addEventListener("keydown", (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && run());
  const rows = h("div", { class: "tr-rows" });
  const says = h("p", { class: "note", role: "status" });
  const words = h("textarea", { rows: 3, "aria-label": t("tr.terms"), spellcheck: "false", value: kept.terms });
  words.addEventListener("input", () => (kept.terms = words.value));
  const both = box("both", t("tr.both"));
  both.input.addEventListener("change", () => show());
  const go = textButton(t("tr.go"), () => (busy ? busy.abort() : run()), { class: "button main", icon: "translate" });
  const whole = () => kept.rows.map(({ translation }) => translation).join("\n");
  const tools = h(
    "div",
    { class: "row tools" },
    both.element,
    textButton(t("tr.copy"), () => copy(whole()).then(() => announce(t("tr.copied"))), { icon: "copy", class: "button small" }),
    textButton(t("tr.download"), () => download(`translation.${kept.to}.txt`, whole(), "text/plain"), {
      icon: "download",
      class: "button small",
    }),
  );
  const result = h("section", { class: "panel", "aria-label": t("tr.result") }, h("h2", {}, t("tr.result")), says, rows, tools);
  let busy = null;

  function show() {
    result.hidden = !kept.rows.length && !busy;
    rows.classList.toggle("both", kept.both);
    rows.replaceChildren(...kept.rows.map((row) => resultRow(row, { both: kept.both, percent })));
    const low = kept.rows.filter(({ is_low }) => is_low).length;
    says.textContent = busy ? t("tr.running") : t("tr.done", { n: n(kept.rows.length), low: n(low) });
    tools.hidden = Boolean(busy) || !kept.rows.length;
    go.lastChild.textContent = t(busy ? "tr.stop" : "tr.go");
  }

  async function run() {
    const texts = kept.text.split("\n").map((line) => line.trim()).filter(Boolean);
    if (!texts.length || busy) return field.focus();
    busy = new AbortController();
    kept.rows = [];
    show();
    let from = kept.from;
    try {
      for (let i = 0; i < texts.length; i += AT_ONCE) {
        const body = { texts: texts.slice(i, i + AT_ONCE), to: kept.to, check: kept.check, glossary: terms() };
        const found = await call("v1/translate", from ? { ...body, from } : body, busy.signal);
        from ||= found.from;
        kept.rows.push(...found.translations.map((row) => ({ ...row, from, to: kept.to })));
        show();
      }
    } catch (error) {
      if (error.name !== "AbortError") wrong(error);
    }
    busy = null;
    show();
    announce(says.textContent);
    if (!kept.from && from) says.textContent += ` · ${t("tr.found", { language: nameOf(from) })}`;
  }

  show();
  const more = h("details", { class: "more" }, h("summary", {}, t("tr.terms")), h("p", { class: "note" }, t("tr.terms.note")), words);
  const check = box("check", t("tr.check"));
  const chosen = languages(() => measuredNote(measured));
  return [h("section", { class: "panel" }, chosen, field, more, h("div", { class: "row between" }, check.element, go)), result];
}

function filePanel() {
  const panel = h("section", { class: "panel" }, h("h2", {}, t("tr.files")), h("p", { class: "note" }, t("tr.files.note")));
  const jobs = jobList("translate", { title: t("tr.jobs"), show: (result) => fileReports(result, percent) });
  const go = textButton(t("tr.files.go"), submit, { class: "button main", disabled: !kept.files.length, icon: "translate" });
  const zone = h("div", {});
  const draw = () =>
    what().then(
      ({ suffixes }) =>
        zone.replaceChildren(
          dropZone({
            kinds: suffixes,
            limit: 64 * 2 ** 20, // of apps/translate/document.py
            many: true,
            kept: kept.files,
            label: t("tr.files.drop"),
            onchange: (files) => {
              kept.files = files;
              go.disabled = !files.length;
            },
          }),
        ),
      wrong,
    );
  async function submit() {
    const names = kept.files.map(({ name }) => name).join(", ");
    const label = t(kept.files.length > 1 ? "tr.job" : "tr.job.one", { n: kept.files.length, names, language: nameOf(kept.to) });
    const payload = { files: kept.files.map(({ id }) => id), to: kept.to, bilingual: kept.bilingual, check: kept.check };
    Object.assign(payload, { glossary: terms() }, kept.from ? { from: kept.from } : {});
    try {
      jobs.add(await call("v1/jobs", { kind: "translate", label: label.slice(0, 200), payload }));
      kept.files = [];
      go.disabled = true;
      draw();
    } catch (error) {
      wrong(error);
    }
  }
  draw();
  panel.append(zone, h("div", { class: "row between" }, box("bilingual", t("tr.bilingual")).element, go));
  return [panel, jobs.element];
}

export const translate = {
  name: "translate",
  icon: "translate",
  draw() {
    kept.to ||= language() === "zh" ? "en" : "zh";
    const measured = h("p", { class: "note" });
    const files = h("div", { class: "room-part" });
    about().then(({ keeps }) => keeps && files.append(...filePanel()), () => {});
    const line = `<script src="${new URL("ui/translate.js", location.href).href}" data-to="zh" defer></script>`;
    const site = h("details", { class: "panel more" }, h("summary", {}, t("tr.site")), h("p", { class: "note" }, t("tr.site.note")));
    site.append(h("div", { class: "row" }, h("code", { class: "grow snippet" }, line), iconButton("copy", t("tr.copy"), () => copy(line))));
    return roomPage({ title: t("tr.title"), size: t("tr.size"), note: measured }, measured, textPanel(measured), files, site);
  },
};
