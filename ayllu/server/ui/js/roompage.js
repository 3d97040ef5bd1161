/** What a room other than the chat stands in: a head with its name, colours and language; then its parts, scrolling. */

import { call } from "./api.js";
import { h } from "./dom.js";
import { looks } from "./looks.js";
import { inWords, n, t } from "./words.js";

/** `size`: the size of model that this room's work needs, which is told where the served one is too small; `note`: what
    is to be said of it besides (a text or an element). */
export function roomPage({ title, size, note }, ...parts) {
  document.title = `${title} · Ayllu`;
  const notes = h("div", { class: "room-notes" });
  about().then(
    (server) => {
      if (!server.keeps) notes.append(h("p", { class: "note" }, t("room.keeps")));
      if (size && server.is_small)
        notes.append(h("p", { class: "note warn" }, t("room.small", { model: server.model, n: inWords(server.n_parameters), size }), " ", note));
    },
    () => {}, // calls of the room itself say what is wrong
  );
  return h(
    "main",
    { class: "scroll room-page", tabindex: -1 },
    h("header", { class: "bar" }, h("h1", { class: "title" }, title), looks()),
    h("div", { class: "room-body" }, notes, parts),
  );
}

let asked = null;

/** What the server keeps and does, and which model it has: asked once. */
export function about() {
  asked ??= call("v1/workspace").catch((error) => {
    asked = null;
    throw error;
  });
  return asked;
}

/** Bytes for people. */
export function size(bytes) {
  const units = ["B", "kB", "MB", "GB"];
  let at = 0;
  for (; bytes >= 1000 && at < units.length - 1; at++) bytes /= 1000;
  return `${n(bytes, at && bytes < 10 ? 1 : 0)} ${units[at]}`;
}
