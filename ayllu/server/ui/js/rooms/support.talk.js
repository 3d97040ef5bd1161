/** One conversation as the people of the business see it: what was said and why, and their own words. */

import { call, remove } from "../api.js";
import { h, iconButton, textButton, toast } from "../dom.js";
import { n, t } from "../words.js";

let shown = ""; // what is on show, so that nothing is drawn anew while somebody writes
let draft = "";

export const stateOf = ({ state, operator }) => t(`support.${state}`, { name: operator ?? "" });

/** Draw conversation `number` into `panel`; `renew` is told after each change. */
export async function drawTalk(panel, number, renew) {
  if (number === null) {
    shown = "";
    panel.replaceChildren(h("p", { class: "note" }, t("support.choose")));
    return;
  }
  const { conversation, messages } = await call(`v1/support/conversations/${number}`);
  const now = JSON.stringify([conversation, messages, t("support.title")]);
  if (now === shown && panel.childElementCount) return;
  if (!shown.startsWith(`[{"number":${number},`)) draft = "";
  const wrote = panel.contains(document.activeElement) && document.activeElement.tagName === "TEXTAREA";
  shown = now;
  const said = h("div", { class: "turns" }, messages.map(bubble));
  panel.replaceChildren(head(conversation, renew), said, reply(conversation, renew));
  said.scrollTop = said.scrollHeight;
  if (wrote) panel.querySelector("textarea").focus();
}

function head(conversation, renew) {
  const { number, state } = conversation;
  const act = (what) => async () => {
    await call(`v1/support/conversations/${number}`, { do: what }).catch((error) => toast(error.message));
    renew();
  };
  const forget = async () => {
    if (!confirm(t("support.sure", { n: number }))) return;
    await remove(`v1/support/conversations/${number}`).catch((error) => toast(error.message));
    renew();
  };
  return h(
    "div",
    { class: "row wrap" },
    h("h2", {}, t("support.number", { n: number })),
    h("span", { class: "state grow", "data-state": state }, stateOf(conversation)),
    state === "taken"
      ? textButton(t("support.release"), act("release"), { class: "button small" })
      : textButton(t("support.take"), act("take"), { class: "button small" }),
    state !== "closed" && textButton(t("support.close"), act("close"), { class: "button small" }),
    iconButton("bin", t("support.delete", { n: number }), forget),
  );
}

function bubble({ role, kind, text, facts, thumb }) {
  const about = role === "assistant" ? why(kind, facts) : "";
  const mark = thumb === null ? "" : ` · ${t(thumb > 0 ? "support.up" : "support.down")}`;
  return h(
    "article",
    { class: "bubble", "data-role": role },
    h("p", { class: "who" }, t(`support.role.${role}`)),
    h("p", { class: "text" }, text),
    about && h("p", { class: "note" }, about + mark),
    (facts.citations ?? []).map(({ source, heading }) =>
      h("p", { class: "note source" }, heading ? `${source} › ${heading}` : source),
    ),
  );
}

/** A topic of the sample's rules in the reader's language; one of somebody's own rules as they named it. */
function topicName(topic) {
  const key = `support.topic.${topic}`;
  return t(key) === key ? topic : t(key);
}

function why(kind, { topic, confidence, ms, prompt_tokens, n_tokens, why: reason }) {
  const parts = [t(`support.kind.${kind}`, { topic: topicName(topic) })];
  if (reason) parts.push(reason);
  if (confidence !== null && confidence !== undefined) parts.push(t("support.sure.of", { n: n(100 * confidence) }));
  if (ms) parts.push(t("support.ms", { n: n(ms, ms < 10 ? 1 : 0) }));
  if (n_tokens) parts.push(t("support.tokens", { n: n(prompt_tokens + n_tokens) }));
  return parts.join(" · ");
}

function reply({ number }, renew) {
  const field = h("textarea", { rows: 2, maxlength: 10_000, "aria-label": t("support.reply"), placeholder: t("support.reply") });
  field.value = draft;
  field.addEventListener("input", () => (draft = field.value));
  const send = async (event) => {
    event.preventDefault();
    const text = field.value.trim();
    if (!text) return field.focus();
    try {
      await call(`v1/support/conversations/${number}/reply`, { text });
      draft = field.value = "";
      renew();
    } catch (error) {
      toast(error.message);
    }
  };
  return h(
    "form",
    { class: "reply", onsubmit: send },
    field,
    h("button", { type: "submit", class: "button main" }, t("support.send")),
  );
}
