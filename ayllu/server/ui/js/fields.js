/** The control of one sampling parameter: a name, a place for its value, what it does, and what is wrong with the value. */

import { h } from "./dom.js";
import { FieldFault, read } from "./params.js";
import { t } from "./words.js";

/** `values` is changed in place; `onchange` is told. */
export function field(parameter, values, onchange) {
  const { name } = parameter;
  const id = `p-${name}`;
  const note = h("p", { class: "note", id: `${id}-note` });
  const slide = parameter.slider === undefined ? null : slider(parameter);
  const control = controlOf(parameter, id);
  const show = () => {
    const fault = issue(() => read(parameter, values[name]));
    note.textContent = fault || t(`d.${name}`);
    note.classList.toggle("wrong", Boolean(fault));
    control.setAttribute("aria-invalid", String(Boolean(fault)));
    if (slide) slide.value = Number(values[name] ?? parameter.slider);
    if (slide) slide.classList.toggle("unset", values[name] === undefined);
  };
  const set = (value) => {
    if (value === "" || value === false) delete values[name];
    else values[name] = value;
    show();
    onchange();
  };
  if (parameter.kind === "switch") control.checked = Boolean(values[name]);
  else control.value = values[name] ?? "";
  control.addEventListener("input", () => set(valueOf(parameter, control)));
  slide?.addEventListener("input", () => {
    control.value = slide.value;
    set(Number(slide.value));
  });
  show();
  const label = h("label", { for: id }, t(`p.${name}`));
  const inRow = parameter.kind === "number" || parameter.kind === "switch";
  return h(
    "div",
    { class: "field" },
    inRow ? h("div", { class: "row between" }, label, control) : [label, control],
    slide,
    note,
  );
}

function controlOf({ kind, min, max, step }, id) {
  const shared = { id, "aria-describedby": `${id}-note` };
  switch (kind) {
    case "number":
      return h("input", {
        ...shared,
        type: "number",
        min,
        max,
        step: step === 1 ? 1 : "any",
        placeholder: t("default"),
        inputmode: "decimal",
      });
    case "switch":
      return h("input", { ...shared, type: "checkbox", class: "switch", role: "switch" });
    case "ids":
      return h("input", { ...shared, type: "text", inputmode: "numeric", autocomplete: "off" });
    default:
      return h("textarea", { ...shared, rows: 2, spellcheck: "false", class: "mono" });
  }
}

/** For the pointer; keys and screen readers have the number beside it. */
function slider({ min, max, step }) {
  return h("input", {
    type: "range",
    min,
    max,
    step,
    tabindex: -1,
    "aria-hidden": "true",
  });
}

function valueOf({ kind }, control) {
  if (kind === "switch") return control.checked;
  if (kind !== "number") return control.value;
  return control.validity.badInput ? "?" : control.value === "" ? "" : Number(control.value);
}

/** What is wrong with a value, in words, or "". */
export function issue(work) {
  try {
    work();
    return "";
  } catch (error) {
    if (!(error instanceof FieldFault)) throw error;
    return t("is.wrong", { why: error.message });
  }
}
