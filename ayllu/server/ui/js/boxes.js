/** The two larger boxes of the drawer: the system prompt and the JSON schema. */

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

export function schema(side, change) {
  const note = h("p", { class: "note", id: "schema-note", role: "status" });
  const box = h("textarea", {
    id: "schema",
    rows: 4,
    spellcheck: "false",
    class: "mono",
    value: side.schema,
    "aria-describedby": "schema-note",
    placeholder: '{"type": "object"}',
    oninput: () => {
      side.schema = box.value;
      server.noSchema = "";
      tell();
      change();
    },
  });
  const tell = () => {
    const fault = box.value.trim() ? issue(() => readObject("schema", box.value)) : "";
    note.textContent = fault || (server.noSchema ? t("schema.no", { why: server.noSchema }) : t("schema.note"));
    note.classList.toggle("wrong", Boolean(fault || server.noSchema));
    box.setAttribute("aria-invalid", String(Boolean(fault)));
  };
  tell();
  const clear =
    side.schema &&
    textButton(
      t("schema.clear"),
      () => {
        side.schema = box.value = "";
        server.noSchema = "";
        tell();
        change();
      },
      { class: "button quiet" },
    );
  return h("div", { class: "field" }, h("label", { for: "schema" }, t("schema")), box, note, clear);
}
