/** The token view below an answer: each token as a button, coloured by its probability; what it opens is a choice of others. */

import { h, icon, iconButton } from "./dom.js";
import { branchAt, sideOf } from "./flow.js";
import { place } from "./menu.js";
import { server } from "./server.js";
import { readTokens, textOf } from "./tokens.js";
import { n, t } from "./words.js";

const STEPS = [0.05, 0.2, 0.5, 0.8]; // probabilities between the colours

export function tokenView(conversation, node, onclose) {
  const body = h(
    "div",
    { class: "tokens", role: "toolbar", "aria-label": t("tokens"), onkeydown: (event) => move(event, body) },
    h("p", { class: "note" }, t("tok.loading")),
  );
  const legend = h(
    "p",
    { class: "legend" },
    t("tok.low"),
    [0, 1, 2, 3, 4].map((step) => h("span", { class: `swatch p${step}` })),
    t("tok.high"),
  );
  const element = h(
    "section",
    { class: "token-view", role: "group", "aria-label": t("tokens") },
    h(
      "div",
      { class: "row" },
      h("p", { class: "note grow" }, t("tok.note"), " ", t("tok.temperature")),
      iconButton("close", t("tok.close"), onclose),
    ),
    legend,
    body,
  );
  readTokens(conversation, node, sideOf("a"))
    .then((found) => {
      body.replaceChildren(...found.entries.map((row, at) => token(conversation, node, found, row, at)).flat());
      body.querySelector("button")?.setAttribute("tabindex", "0");
    })
    .catch((error) => body.replaceChildren(h("p", { class: "note" }, t("tok.failed", { why: error.message }))));
  return element;
}

/** One stop for the Tab key; the arrow keys go from token to token. */
function move(event, body) {
  const tokens = [...body.querySelectorAll("button")];
  const at = tokens.indexOf(document.activeElement);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tokens.length - 1 }[event.key];
  if (to === undefined || !(to in tokens)) return;
  event.preventDefault();
  tokens[at]?.setAttribute("tabindex", "-1");
  tokens[to].setAttribute("tabindex", "0");
  tokens[to].focus();
}

function token(conversation, node, found, row, at) {
  const chosen = row.find(({ id }) => id === found.ids[at]) ?? { id: found.ids[at], text: "?", p: 0 };
  const button = h(
    "button",
    {
      type: "button",
      class: `token p${step(chosen.p)}`,
      tabindex: -1,
      "aria-haspopup": "dialog",
      "aria-label": t("tok.one", { token: shown(chosen), p: percent(chosen.p) }),
      onclick: () => choices(button, conversation, node, found, row, at, chosen),
    },
    shown(chosen),
  );
  return chosen.text.endsWith("\n") ? [button, h("br")] : [button];
}

/** The others, in a dialog below the token. */
function choices(button, conversation, node, found, row, at, chosen) {
  const pick = async (one) => {
    dialog.close();
    const ids = [...found.ids.slice(0, at), one.id];
    await branchAt(conversation, node, found.prompt, ids, await textOf(found.prompt, ids));
  };
  const lines = row.map((one) => line(one, one.id === chosen.id, () => pick(one)));
  const dialog = h(
    "dialog",
    {
      class: "choices",
      "aria-label": t("tok.alternatives", { token: shown(chosen) }),
      onclose: () => {
        dialog.remove();
        button.focus();
      },
    },
    h("p", { class: "note" }, t("tok.alternatives", { token: shown(chosen) })),
    h("ul", {}, lines),
  );
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.body.append(dialog);
  dialog.showModal();
  place(dialog, button.getBoundingClientRect());
}

function line(one, isChosen, onclick) {
  const bar = h("span", { class: "bar" });
  bar.style.inlineSize = `${Math.max(1, one.p * 100)}%`;
  return h(
    "li",
    {},
    h(
      "button",
      {
        type: "button",
        onclick,
        title: t("tok.pick", { token: shown(one), p: percent(one.p) }),
        "aria-current": isChosen ? "true" : null,
      },
      h("span", { class: "word" }, shown(one), isChosen && icon("check")),
      h("span", { class: "rail" }, bar),
      h("span", { class: "share" }, percent(one.p)),
    ),
  );
}

/** White space that can be seen; bytes that are no whole character as their numbers; the end as a word. */
function shown({ id, text }) {
  if (server.eosIds.includes(id)) return `⟨${t("tok.end")}⟩`;
  if (/^bytes:(\\x[0-9a-f]{2})+$/.test(text)) return `⟨${text.slice(8).replaceAll("\\x", " ")}⟩`;
  if (/^ +$/.test(text)) return "␣".repeat(text.length);
  return text.replaceAll("\n", "↵").replaceAll("\t", "⇥") || "∅";
}

const step = (p) => STEPS.filter((limit) => p >= limit).length;
const percent = (p) => `${n(p * 100, p < 0.1 ? 1 : 0)}%`;
