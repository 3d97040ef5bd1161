/** Questions that hold the page until they are answered, in the browser's own modal dialogs, which keep the focus. */

import { h, textButton } from "./dom.js";
import { forgetKey, keepKey } from "./api.js";
import { t } from "./words.js";

/** Ask for one line of text; resolves to it, or to null. */
export function askText({ title, note, label, value = "", type = "text", submit }) {
  return new Promise((resolve) => {
    const field = h("input", { type, value, id: "dialog-field", autocomplete: "off", required: true, maxlength: 400 });
    const done = (answer) => {
      dialog.close();
      dialog.remove();
      resolve(answer);
    };
    const form = h(
      "form",
      {
        method: "dialog",
        onsubmit: (event) => {
          event.preventDefault();
          done(field.value.trim() || null);
        },
      },
      h("h2", { id: "dialog-title" }, title),
      note && h("p", { class: "note" }, note),
      h("label", { for: "dialog-field" }, label),
      field,
      h(
        "div",
        { class: "row end" },
        textButton(t("cancel"), () => done(null), { class: "button quiet" }),
        h("button", { class: "button main", type: "submit" }, submit),
      ),
    );
    const dialog = h(
      "dialog",
      {
        "aria-labelledby": "dialog-title",
        oncancel: (event) => {
          event.preventDefault();
          done(null);
        },
      },
      form,
    );
    document.body.append(dialog);
    dialog.showModal();
    field.select();
  });
}

let asking = null;

/** The server wants a key; many calls may notice at once, and one dialog serves them all. */
export function askKey(isWrong) {
  asking ??= askText({
    title: t("key.title"),
    note: isWrong ? `${t("key.wrong")} ${t("key.note")}` : t("key.note"),
    label: t("key.label"),
    type: "password",
    submit: t("key.use"),
  }).then((key) => {
    asking = null;
    if (key) keepKey(key);
    else forgetKey();
    return Boolean(key);
  });
  return asking;
}
