/** What stands where no conversation is yet: what one can do with this model, and a few beginnings. */

import { emit } from "./bus.js";
import { h, icon, textButton } from "./dom.js";
import { send } from "./flow.js";
import { begin, library } from "./library.js";
import { server } from "./server.js";
import { language, t } from "./words.js";

const BEGINNINGS = {
  text: {
    en: ["Once upon a time", "The king said to his wife,", "It was a dark night, and the ship"],
    zh: ["从前有一个", "话说那日", "春天来了，"],
  },
  chat: {
    en: ["Tell me a short story about a fox.", "How do you say “Good morning” in Chinese?", "What is 17 + 25?"],
    zh: ["讲一个关于狐狸的小故事。", "“早上好”用英语怎么说？", "17加25等于多少？"],
  },
};

export function welcome() {
  const { kind } = library.current;
  const others = language() === "zh" ? ["zh", "en"] : ["en", "zh"];
  const beginnings = others.flatMap((tag, i) => BEGINNINGS[kind][tag].slice(0, i ? 1 : 3));
  return h(
    "div",
    { class: "welcome" },
    h("h2", {}, t(`hello.${kind}`)),
    kinds(kind),
    h(
      "p",
      { class: "note" },
      kind === "chat" && server.state === "ready" && !server.isChat ? t("kind.untrained") : t(`kind.${kind}.note`),
    ),
    h(
      "div",
      { class: "beginnings" },
      beginnings.map((text) =>
        textButton(text, () => send(text), { class: "button beginning", disabled: server.state !== "ready" }),
      ),
    ),
    h("p", { class: "note quiet-line" }, icon("lock"), t("hello.note")),
  );
}

function kinds(current) {
  return h(
    "div",
    { class: "segments", role: "radiogroup", "aria-label": t("kind") },
    ["chat", "text"].map((kind) =>
      h(
        "label",
        {},
        h("input", {
          type: "radio",
          name: "kind",
          value: kind,
          checked: kind === current,
          onchange: () => choose(kind),
        }),
        h("span", {}, t(`kind.${kind}`)),
      ),
    ),
  );
}

function choose(kind) {
  library.kindWasChosen = true;
  begin(kind);
  document.querySelector(`input[name=kind][value=${kind}]`)?.focus();
  emit("draft");
}
