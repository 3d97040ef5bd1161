/** A document, opened at a passage that is marked; more of it on both sides as it is wanted. */

import { call } from "../api.js";
import { h, iconButton, textButton, toast } from "../dom.js";
import { t } from "../words.js";

const AROUND = 3000; // characters on each side, and of each further piece

/** `place`: {document, source, start, end}; without start the document opens at its beginning. */
export async function openDocument(collection, { document: number, source, start, end }) {
  const path = `v1/collections/${collection}/documents/${number}`;
  const part = (from, to) => call(`${path}?start=${Math.max(0, from)}&end=${Math.max(0, to)}`);
  const isMarked = start !== undefined;
  try {
    const from = isMarked ? Math.max(0, start - AROUND) : 0;
    const found = await part(from, isMarked ? end + AROUND : 2 * AROUND);
    const shown = { from, to: found.end };
    const text = h("div", { class: "document-text", tabindex: 0 });
    const mark = isMarked && h("mark", {}, slice(found, start, end));
    text.append(...(isMarked ? [slice(found, from, start), mark, slice(found, end, found.end)] : [found.text]));
    const title = found.title || source;
    const dialog = h("dialog", { class: "reader", "aria-label": title, onclose: () => dialog.remove() });
    const more = (label, get, put, isLeft) => {
      const button = textButton(t(label), async () => {
        try {
          put(await get());
          button.hidden = !isLeft();
        } catch (error) {
          toast(error.message);
        }
      }, { class: "button small quiet" });
      button.hidden = !isLeft();
      return button;
    };
    const before = more(
      "ask.before",
      () => part(shown.from - AROUND, shown.from),
      (piece) => {
        shown.from = piece.start;
        text.prepend(piece.text);
      },
      () => shown.from > 0,
    );
    const after = more(
      "ask.after",
      () => part(shown.to, shown.to + AROUND),
      (piece) => {
        shown.to = piece.end;
        text.append(piece.text);
      },
      () => shown.to < found.characters,
    );
    dialog.append(
      h(
        "header",
        { class: "row" },
        h("h2", { class: "grow" }, title, title !== source && h("span", { class: "note" }, ` ${source}`)),
        iconButton("close", t("ask.close"), () => dialog.close()),
      ),
      h("div", { class: "reader-body" }, before, text, after),
    );
    document.body.append(dialog);
    dialog.showModal();
    if (mark) mark.scrollIntoView({ block: "center" });
  } catch (error) {
    toast(error.status === 404 ? t("ask.gone", { source }) : error.message); // a document read anew has another number
  }
}

/** Places count characters as Python does: code points, of which JavaScript writes some as two. */
function slice({ start, text }, from, to) {
  const points = Array.from(text);
  return points.slice(from - start, to - start).join("");
}
