/** The larger boxes of the drawer: the system prompt, the JSON schema, and what both have with the box of tools. */

import { h, textButton } from "./dom.js";
import { issue } from "./fields.js";
import { readObject } from "./params.js";
import { server } from "./server.js";
import { t } from "./words.js";

export function system(side, kind, change) {
  const isText = kind === "text";
  return h(
    "div",
    { class: "field" },
    h("label", { for: "system" }, t("system")),
    h("textarea", {
      id: "system",
      rows: 3,
      value: side.system,
      disabled: isText,
      "aria-describedby": "system-note",
      oninput: (event) => {
        side.system = event.target.value;
        change();
      },
    }),
    h("p", { class: "note", id: "system-note" }, t(isText ? "system.text" : "system.note")),
  );
}

/** A box for JSON and the note below it: {box, note, tell, fill}. `set(text)` is called with what was typed or filled in;
    `tell(fault, says, isWrong)` writes the note. */
export function jsonBox(id, { rows, value, placeholder, set }) {
  const note = h("p", { class: "note", id: `${id}-note`, role: "status" });
  const box = h("textarea", {
    id,
    rows,
    value,
    placeholder,
    spellcheck: "false",
    class: "mono",
    "aria-describedby": note.id,
    oninput: () => set(box.value),
  });
  const tell = (fault, says, isWrong = Boolean(fault)) => {
    note.textContent = fault || says;
    note.classList.toggle("wrong", isWrong);
    box.setAttribute("aria-invalid", String(Boolean(fault)));
  };
  const fill = (text) => {
    box.value = text;
    set(text);
    box.focus();
  };
  return { box, note, tell, fill };
}

export function schema(side, change) {
  const set = (text) => {
    side.schema = text;
    server.noSchema = "";
    look();
    change();
  };
  const { box, note, tell, fill } = jsonBox("schema", {
    rows: 4,
    value: side.schema,
    placeholder: '{"type": "object"}',
    set,
  });
  const clear = textButton(t("schema.clear"), () => fill(""), { class: "button quiet small" });
  const look = () => {
    const fault = box.value.trim() ? issue(() => readObject("schema", box.value)) : "";
    const isRefused = Boolean(server.noSchema);
    tell(
      fault,
      isRefused ? t("schema.no", { why: server.noSchema }) : t("schema.note"),
      Boolean(fault) || isRefused,
    );
    clear.hidden = !box.value.trim();
  };
  look();
  return h("div", { class: "field" }, h("label", { for: "schema" }, t("schema")), box, note, h("div", {}, clear));
}
