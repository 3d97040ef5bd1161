/** What the checks found, each with its place in the text; and the versions with what changed. */

import { on } from "../bus.js";
import { h, icon, textButton } from "../dom.js";
import { explained } from "../faults.js";
import { n, t } from "../words.js";
import { select } from "./write.paper.js";
import { check, compare, isBusy, state, take } from "./write.state.js";

export function checks() {
  const list = h("ul", { class: "checks" });
  const again = textButton(t("write.recheck"), check, { class: "button small", icon: "again" });
  const element = h("section", { class: "panel", "aria-label": t("write.checks") }, h("div", { class: "row between" }, h("h2", {}, t("write.checks")), again), list);
  const draw = () => {
    element.hidden = !state.checks || isBusy();
    if (!element.hidden) list.replaceChildren(...rows(state.checks));
  };
  on("write", draw);
  draw();
  return element;
}

function rows({ faults, length, target, unit, points, missing, forbidden, repetition, repeated, copies, claims, unread }) {
  const units = t(`write.unit.${unit}`);
  const row = (name, says, ...more) => verdict(!faults.includes(name), says, more);
  const places = (spans) => spans.slice(0, 20).map(({ start, end, text }) => place(start, end, text));
  return [
    row("length", t("write.check.length", { n: n(length), target: n(target), unit: units })),
    points.length &&
      row(
        "points",
        t("write.check.points", { n: points.filter(({ covered }) => covered).length, all: points.length }),
        points.filter(({ covered }) => !covered).map(({ point }) => h("li", {}, t("write.check.missing", { point }))),
      ),
    missing.length && row("keywords", t("write.check.keywords", { words: missing.join(", ") })),
    forbidden.length && row("forbidden", t("write.check.forbidden", { n: forbidden.length }), places(forbidden)),
    row("repetition", t("write.check.repetition", { share: `${n(repetition * 100)} %`, n: repeated.length }), places(repeated)),
    copies.length &&
      row(
        "copies",
        t("write.check.copies", { n: copies.length }),
        copies.slice(0, 20).map(({ start, end, text, source, source_start: at, n_units }) =>
          place(start, end, text, t("write.check.copy", { n: n_units, unit: units, source, at: n(at) })),
        ),
      ),
    unread && h("li", { class: "look" }, icon("search"), h("span", {}, explained(unread))),
    claims.length && h("li", { class: "look" }, icon("search"), h("span", {}, t("write.check.claims", { n: claims.length })), h("ul", {}, places(claims))),
  ].filter(Boolean);
}

function verdict(isMet, says, more) {
  return h(
    "li",
    { class: isMet ? "met" : "unmet" },
    icon(isMet ? "check" : "close"),
    h("span", {}, says, " ", h("span", { class: "verdict" }, t(isMet ? "write.met" : "write.unmet"))),
    more.flat().length > 0 && h("ul", {}, more),
  );
}

/** A place in the text, which a click shows. */
function place(start, end, text, note) {
  const short = text.length > 120 ? `${text.slice(0, 119)}…` : text;
  return h("li", {}, h("button", { type: "button", class: "place", onclick: () => select(start, end) }, short), note && h("span", { class: "note" }, note));
}

export function versions() {
  const chosen = h("select", { "aria-label": t("write.versions"), onchange: () => take(state.versions[chosen.value]) });
  const differ = textButton(t("write.compare"), () => compare(state.versions[chosen.value - 1], state.versions[chosen.value]), {
    class: "button small",
    icon: "compare",
  });
  const diff = h("div", { class: "diff" });
  const element = h("section", { class: "panel", "aria-label": t("write.versions") }, h("h2", {}, t("write.versions")), h("div", { class: "row wrap" }, chosen, differ), diff);
  const draw = () => {
    element.hidden = !state.versions.length || isBusy();
    const at = state.versions.findLastIndex(({ text }) => text === state.text);
    chosen.replaceChildren(...state.versions.map(option));
    chosen.value = at < 0 ? state.versions.length - 1 : at;
    differ.disabled = Number(chosen.value) < 1;
    diff.replaceChildren(...(state.diff ?? []).map(change));
    if (state.diff?.every(([kind]) => kind === "same")) diff.replaceChildren(h("p", { class: "note" }, t("write.same")));
  };
  on("write", draw);
  draw();
  return element;
}

function option({ version, note, created_s }, i) {
  const when = note || (i ? new Date(created_s * 1000).toLocaleTimeString() : t("write.version.first"));
  return h("option", { value: i }, t("write.version", { n: version, when }));
}

function change([kind, text]) {
  if (kind === "same") return text;
  const tag = kind === "added" ? "ins" : "del";
  return h(tag, { "aria-label": `${t(`write.${kind}`)}: ${text}` }, text);
}
