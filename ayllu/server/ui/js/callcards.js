/** Calls of tools as cards: what is called with which arguments, and the fields for what the tools gave. */

import { jobs } from "./answer.js";
import { areWhole, indented } from "./calls.js";
import { h, icon, textButton } from "./dom.js";
import { giveResults, isBusy } from "./flow.js";
import { codeBlock } from "./render.js";
import { t } from "./words.js";

const drafts = new Map(); // id of an answer: the results as they were typed so far

/** {place, update}: `update` draws only what changed, so that fields keep their focus. */
export function callCards(conversation, node) {
  const place = h("div", { class: "calls" });
  const cards = h("div", {});
  const form = h("div", {});
  place.append(cards, form);
  let shown = "";
  let wanted = null;
  const update = () => {
    const now = JSON.stringify([node.calls, jobs.has(node.id)]);
    if (now !== shown) cards.replaceChildren(...(node.calls ?? []).map((call) => card(call, !jobs.has(node.id))));
    shown = now;
    const wants = areWhole(node.calls) && !jobs.has(node.id) && !node.children.length;
    if (wants !== wanted) form.replaceChildren(...(wants ? [newResults(conversation, node)] : []));
    wanted = wants;
    form.querySelector(".main")?.toggleAttribute("disabled", isBusy());
  };
  return { place, update };
}

function card(call, isOver) {
  const isCut = isOver && !areWhole([call]);
  return h(
    "section",
    { class: "call", role: "group", "aria-label": t("calls.one", { name: call.name }) },
    h("p", { class: "call-head" }, icon("tool"), h("span", {}, t("calls.calls"), " ", h("code", {}, call.name))),
    codeBlock({ language: t("calls.arguments"), text: indented(call.arguments || "{}") }),
    isCut && h("p", { class: "note" }, t("calls.cut")),
  );
}

function newResults(conversation, node) {
  const values = drafts.get(node.id) ?? node.calls.map(() => "");
  drafts.set(node.id, values);
  return resultFields(node.calls, values, t("calls.send"), () => {
    if (isBusy()) return;
    drafts.delete(node.id);
    giveResults(conversation, node, [...values]);
  });
}

/** A field for the result of each call; `values` is changed in place. Ctrl + Enter sends, too. */
export function resultFields(calls, values, submit, onsubmit, more = []) {
  const onkeydown = (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    onsubmit();
  };
  return h(
    "div",
    { class: "results", onkeydown },
    calls.map(({ name }, i) =>
      h(
        "label",
        {},
        h("span", {}, t("calls.result", { name })),
        h("textarea", {
          rows: Math.min(10, values[i].split("\n").length + 1),
          class: "mono",
          spellcheck: "false",
          value: values[i],
          oninput: (event) => {
            values[i] = event.target.value;
          },
        }),
      ),
    ),
    h(
      "div",
      { class: "row end wrap" },
      h("span", { class: "note grow" }, t("calls.note")),
      more,
      textButton(submit, onsubmit, { class: "button main" }),
    ),
  );
}
