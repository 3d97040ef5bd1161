/** What tools gave, as it was told to the model: shown, and edited into a new version. */

import { resultFields } from "./callcards.js";
import { h, iconButton, textButton } from "./dom.js";
import { giveResults, isBusy } from "./flow.js";
import { t } from "./words.js";
import { versionButtons } from "./versions.js";

/** The same as message.js makes of a message: {node, body, under, update, edit}. */
export function results(conversation, node) {
  const { calls } = conversation.nodes[node.parent];
  const body = h("div", { class: "body told" });
  const under = h("div", { class: "under" });
  const pen = iconButton("edit", t("calls.edit"), () => edit());
  const end = () => {
    body.replaceChildren(...node.results.map((text, i) => shown(calls[i].name, text)));
    under.replaceChildren(h("div", { class: "buttons" }, versionButtons(conversation, node), pen));
  };
  const edit = () => {
    const values = [...node.results];
    const send = () => isBusy() || giveResults(conversation, conversation.nodes[node.parent], values);
    const cancel = textButton(t("cancel"), end, { class: "button quiet" });
    const form = resultFields(calls, values, t("edit.send"), send, [cancel]);
    form.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.preventDefault();
      end();
      pen.focus();
    });
    body.replaceChildren(form);
    under.replaceChildren();
    form.querySelector("textarea").focus();
  };
  end();
  const update = () => {
    pen.disabled = isBusy();
  };
  update();
  return { node, body, under, update, edit };
}

function shown(name, text) {
  return h(
    "section",
    { class: "call", role: "group", "aria-label": t("calls.result", { name }) },
    h("p", { class: "call-head" }, t("calls.result", { name })),
    h("pre", { tabindex: 0, role: "group", "aria-label": t("calls.result", { name }) }, text),
  );
}
