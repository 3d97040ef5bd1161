/** Where a person writes; below it, how much of the context is used. */

import { attachments, taken, waiting } from "./attach.js";
import { emit, on } from "./bus.js";
import { h, iconButton } from "./dom.js";
import { goOn, isBusy, send, stop } from "./flow.js";
import { gauge } from "./gauge.js";
import { library } from "./library.js";
import { server } from "./server.js";
import { tip } from "./tree.js";
import { t } from "./words.js";

const TALLEST = 0.4; // of the window

export function composer() {
  const field = h("textarea", {
    rows: 1,
    id: "composer",
    value: library.draft ?? "",
    oninput: () => {
      library.draft = field.value;
      grow(field);
      emit("draft");
    },
  });
  const go = iconButton("send", t("send"), () => submit(field), { class: "icon-button main" });
  const end = iconButton("stop", t("stop"), stop, { class: "icon-button main" });
  const added = attachments();
  field.addEventListener("keydown", (event) => onkeydown(event, field));
  const refresh = () => {
    const isText = library.current.kind === "text";
    const label = t(
      isText ? (tip(library.current).role === "root" ? "composer.text" : "composer.more") : "composer.chat",
    );
    field.placeholder = label;
    field.setAttribute("aria-label", label);
    const wasOnButton = document.activeElement === go || document.activeElement === end;
    go.hidden = isBusy();
    end.hidden = !isBusy();
    go.disabled = server.state !== "ready" || !(field.value.trim() || waiting().length || canGoOn());
    if (wasOnButton) (isBusy() ? end : field).focus();
    added.update();
    grow(field);
  };
  for (const name of ["jobs", "thread", "draft", "server", "settings"]) on(name, refresh);
  on("focus", () => field.focus());
  const whole = h(
    "section",
    { class: "composer", "aria-label": t("begin") },
    h(
      "form",
      {
        class: "box",
        onsubmit: (event) => {
          event.preventDefault();
          submit(field);
        },
      },
      added.tray,
      field,
      added.buttons,
      go,
      end,
    ),
    h("div", { class: "row below" }, gauge(), h("span", { class: "keys" }, t("keys"))),
  );
  added.listen(whole);
  return whole;
}

/** In a text, sending nothing lets the model write on. */
const canGoOn = () => library.current.kind === "text" && tip(library.current).role === "assistant";

function submit(field) {
  if (isBusy() || server.state !== "ready") return;
  const text = library.current.kind === "text" ? field.value : field.value.trim();
  if (!text.trim() && !waiting().length) {
    if (canGoOn()) goOn(library.current, tip(library.current));
    return;
  }
  field.value = library.draft = "";
  send(text, taken());
}

function onkeydown(event, field) {
  if (event.isComposing || event.keyCode === 229) return; // a Chinese word is being put together
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    submit(field);
  } else if (event.key === "ArrowUp" && !field.value) {
    event.preventDefault();
    emit("edit.last");
  }
}

/** As tall as the text; on a phone, a text of several lines has their whole width, until it is gone. */
function grow(field) {
  const line = parseFloat(getComputedStyle(field).lineHeight);
  field.style.blockSize = "auto";
  const isTall = field.value && (field.parentElement?.classList.contains("tall") || field.scrollHeight > 2.5 * line);
  field.parentElement?.classList.toggle("tall", Boolean(isTall));
  field.style.blockSize = `${Math.min(field.scrollHeight + 2, innerHeight * TALLEST)}px`;
}
