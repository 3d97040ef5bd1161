/** The box of tools in the drawer: the functions, which of them may be called, and what is wrong with the list. */

import { jsonBox } from "./boxes.js";
import { h, textButton } from "./dom.js";
import { issue } from "./fields.js";
import { CHOICES, EXAMPLE, readTools } from "./toolset.js";
import { t } from "./words.js";

export function toolBox(side, change) {
  const set = (text) => {
    side.tools = text;
    look();
    change();
  };
  const { box, note, tell, fill } = jsonBox("tools", {
    rows: 5,
    value: side.tools,
    placeholder: '[{"name": "…", "parameters": {…}}]',
    set,
  });
  const choice = h("select", {
    id: "tool-choice",
    onchange: () => {
      side.choice = choice.value;
      change();
    },
  });
  const example = textButton(t("tools.example"), () => fill(EXAMPLE), { class: "button quiet small" });
  const clear = textButton(t("schema.clear"), () => fill(""), { class: "button quiet small" });
  const look = () => {
    let names = [];
    const fault = issue(() => {
      names = readTools(box.value).map((one) => one.function.name);
    });
    tell(fault, names.length ? t("tools.found", { n: names.length, names: names.join(", ") }) : t("tools.note"));
    if (!fault) offer(choice, side, names);
    choice.parentElement?.toggleAttribute("hidden", !names.length && !fault);
    example.hidden = Boolean(box.value.trim());
    clear.hidden = !box.value.trim();
  };
  const chosen = h("div", { class: "field" }, h("label", { for: "tool-choice" }, t("tools.choice")), choice);
  look();
  return h(
    "fieldset",
    {},
    h("legend", {}, t("tools.legend")),
    h("div", { class: "field" }, h("label", { for: "tools" }, t("tools")), box, note, h("div", {}, example, clear)),
    chosen,
  );
}

/** The ways to choose: by the model, none, one at least, or one function by its name. */
function offer(choice, side, names) {
  if (!CHOICES.includes(side.choice) && !names.includes(side.choice)) side.choice = "auto";
  choice.replaceChildren(
    ...CHOICES.map((one) => h("option", { value: one }, t(`tools.${one}`))),
    ...names.map((name) => h("option", { value: name }, t("tools.only", { name }))),
  );
  choice.value = side.choice;
}
