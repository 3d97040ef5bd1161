/** The beginning: what was kept is read, the page is drawn, the server is asked what it has. */

import { emit, on, beginDrawing } from "./bus.js";
import { askKey } from "./dialogs.js";
import { onKeyNeeded } from "./api.js";
import { closeUnfinished, isBusy, stop } from "./flow.js";
import { begin, library, load, writeAll } from "./library.js";
import { applyTheme } from "./look.js";
import { rail } from "./rail.js";
import { here } from "./rooms.js";
import { connect, renew, server } from "./server.js";
import { h } from "./dom.js";
import { language } from "./words.js";

function draw() {
  beginDrawing();
  applyTheme();
  document.documentElement.lang = language() === "zh" ? "zh-CN" : "en";
  const { room, rest } = here();
  document.getElementById("app").replaceChildren(rail(), h("div", { class: "room" }, room.draw(rest)));
  for (const name of ["list", "thread", "settings", "server", "draft"]) emit(name);
}

/** Another room: who listens instead of looks begins at its top. */
function enter() {
  document.querySelectorAll("dialog.reader").forEach((dialog) => dialog.close()); // of the room that is left
  draw();
  document.querySelector("main").focus({ preventScroll: true });
}

/** Keys of the chat: Escape ends an answer, Ctrl+K looks for a conversation. */
function onkeydown(event) {
  if (here().room.name !== "chat") return;
  if (event.key === "Escape" && isBusy() && !event.defaultPrevented && !document.querySelector("dialog[open]")) stop();
  if (event.key === "k" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    emit("search");
  }
}

on("language", draw, { forever: true });
on(
  "server",
  () => {
    if (server.state !== "ready" || library.all.includes(library.current)) return;
    if (!library.kindWasChosen) begin(server.isChat ? "chat" : "text");
  },
  { forever: true },
);
addEventListener("hashchange", enter);
document.addEventListener("keydown", onkeydown);
document.addEventListener("click", (event) => emit("click", event.target));
document.addEventListener("visibilitychange", () => (document.hidden ? writeAll() : renew()));
addEventListener("pagehide", writeAll);
onKeyNeeded(askKey);

await load();
library.all.forEach(closeUnfinished);
draw();
await connect();
