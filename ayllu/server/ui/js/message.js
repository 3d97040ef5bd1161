/** One message: its text, what happens with it, what can be done with it, and what is known of it. */

import { jobs, speed } from "./answer.js";
import { callCards } from "./callcards.js";
import { copy, h, icon, iconButton, textButton } from "./dom.js";
import { explained } from "./faults.js";
import { edit, goOn, isBusy, regenerate } from "./flow.js";
import { renderInto } from "./render.js";
import { shownMedia } from "./showmedia.js";
import { tokenView } from "./tokenview.js";
import { hasMedia, versions } from "./tree.js";
import { versionButtons } from "./versions.js";
import { countdown, pauseOf, waiting } from "./waiting.js";
import { n, t } from "./words.js";

/** {media, body, under, update, edit}: `body` holds the text, `media` what was shown with it, `under` everything below. */
export function message(conversation, node) {
  const isAnswer = node.role === "assistant";
  const media = node.media?.length ? h("div", { class: "media" }, node.media.map((one) => shownMedia(one))) : null;
  const body = h(conversation.kind === "text" ? "span" : "div", { class: `body ${isAnswer ? "answer" : "yours"}` });
  const state = h("div", { class: "state" });
  const stats = h("p", { class: "stats" });
  const buttons = h("div", { class: "buttons" });
  const tokens = h("div");
  const calls = isAnswer ? callCards(conversation, node) : { place: null, update: () => {} };
  const below = h("div", { class: "row wrap" }, buttons, stats);
  const under = h("div", { class: "under" }, calls.place, state, below, tokens);
  const view = { node, media, body, under, isEditing: false };
  view.update = () => {
    if (!view.isEditing) write(conversation, node, body);
    // A countdown changes its words only, so that its button can be pressed and keeps the focus.
    const pause = pauseOf(node);
    if (!pause || view.pause !== pause) state.replaceChildren(...stateOf(conversation, node));
    else state.querySelector(".left").textContent = countdown(jobs.get(node.id));
    view.pause = pause;
    calls.update();
    stats.replaceChildren(...(isAnswer ? facts(node) : []));
    const look = `${jobs.has(node.id)} ${isBusy()} ${node.finish} ${versions(conversation, node)} ${Boolean(node.text)} ${Boolean(node.calls)}`;
    if (view.look !== look) buttons.replaceChildren(...actions(conversation, node, view, tokens));
    view.look = look;
  };
  view.edit = () => beginEdit(conversation, view);
  view.update();
  return view;
}

function write(conversation, node, body) {
  body.hidden = Boolean(node.media) && !node.text;
  body.classList.toggle("writing", jobs.get(node.id)?.state === "streaming");
  if (node.role === "assistant" && conversation.kind === "chat") renderInto(body, node.text);
  else if (body.textContent !== node.text) body.textContent = node.text;
}

function stateOf(conversation, node) {
  const job = jobs.get(node.id);
  if (job && job.state !== "streaming") return [waiting(job)];
  if (!node.error) return [];
  const { message: why, param, code, lost } = node.error;
  const hint =
    code === "context_length_exceeded" ? t("error.context") : param ? t("error.field", { name: param }) : null;
  return [
    h(
      "div",
      { class: "fault", role: "alert" },
      h("strong", {}, t("error.title")),
      h("p", {}, lost ? t("error.lost") : explained(why, node.error)),
      hint && h("p", { class: "note" }, hint),
      h(
        "div",
        { class: "row" },
        textButton(t("retry"), () => regenerate(conversation, node), { icon: "again" }),
        node.text && !node.calls && textButton(t("onward"), () => goOn(conversation, node), { icon: "onward" }),
      ),
    ),
  ];
}

function facts({ stats, finish, seed, id }) {
  if (!stats?.tokens) return finish && finish !== "error" && !jobs.has(id) ? [t(`finish.${finish}`)] : [];
  const rate = speed(stats);
  return [
    stats.tokens === 1 ? t("stat.token") : t("stat.tokens", { n: n(stats.tokens) }),
    rate && t("stat.speed", { n: n(rate, 1) }),
    stats.first_ms != null && t("stat.first", { n: n(stats.first_ms / 1000, 2) }),
    finish && t(`finish.${finish}`),
    stats.shortened && t("stat.room", { room: n(stats.shortened.room), asked: n(stats.shortened.asked) }),
    stats.prompt && t("stat.prompt", { n: n(stats.prompt) }),
    stats.cached > 0 && t("stat.cached", { n: n(stats.cached) }),
    seed != null && t("stat.seed", { n: seed }),
  ]
    .filter(Boolean)
    .flatMap((fact, i) => [i ? "\u00a0· " : "", h("span", {}, fact)]); // lines break between facts only
}

function actions(conversation, node, view, tokens) {
  const found = versionButtons(conversation, node);
  if (jobs.has(node.id)) return found;
  if (!node.text && !node.calls && node.error) return found; // its fault says what can be done
  const can = { disabled: isBusy() };
  const isAnswer = node.role === "assistant";
  if (isAnswer && node.text) found.push(copyButton(node));
  if (!node.calls) found.push(iconButton("edit", isAnswer ? t("edit") : `${t("edit")}: ${t("begin")}`, view.edit, can));
  if (!isAnswer) return found;
  found.push(iconButton("again", t("again"), () => regenerate(conversation, node), can));
  if (!node.text && !node.calls) return found;
  const toggle = () => {
    const isOpen = tokens.childNodes.length > 0;
    tokens.replaceChildren(...(isOpen ? [] : [tokenView(conversation, node, toggle)]));
    button.setAttribute("aria-expanded", String(!isOpen));
    if (isOpen) button.focus();
  };
  const button = iconButton("tokens", t("tokens"), toggle, {
    ...can,
    "aria-expanded": String(tokens.childNodes.length > 0),
  });
  if (!hasMedia(conversation, node)) found.push(button);
  if (!node.calls)
    found.push(
      textButton(t("onward"), () => goOn(conversation, node), { ...can, class: "button quiet small", icon: "onward" }),
    );
  return found;
}

function copyButton(node) {
  const button = iconButton("copy", t("copy"), async () => {
    await copy(node.text);
    button.replaceChildren(icon("check"));
    button.setAttribute("aria-label", t("copied"));
    setTimeout(() => {
      button.replaceChildren(icon("copy"));
      button.setAttribute("aria-label", t("copy"));
    }, 1500);
  });
  return button;
}

function beginEdit(conversation, view) {
  if (isBusy() || view.isEditing) return;
  const { node, body } = view;
  const field = h("textarea", {
    value: node.text,
    "aria-label": t("edit.label"),
    rows: Math.min(14, node.text.split("\n").length + 2),
  });
  const end = () => {
    view.isEditing = false;
    body.replaceChildren();
    body.keys = [];
    view.update();
  };
  const keep = () => {
    if (field.value.trim() || conversation.kind === "text" || node.media) {
      end();
      edit(conversation, node, field.value);
    }
  };
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      event.preventDefault();
      end();
    }
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      keep();
    }
  });
  view.isEditing = true;
  body.hidden = false;
  body.replaceChildren(
    h(
      "div",
      { class: "editor" },
      field,
      h(
        "div",
        { class: "row end" },
        textButton(t("cancel"), end, { class: "button quiet" }),
        textButton(t(node.role === "user" ? "edit.send" : "edit.save"), keep, { class: "button main" }),
      ),
    ),
  );
  field.focus();
}
