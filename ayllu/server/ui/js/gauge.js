/** How much of the context a conversation takes, counted by the server's own tokenizer. */

import { jobsOf } from "./answer.js";
import { call } from "./api.js";
import { tokenizeBody } from "./ask.js";
import { on } from "./bus.js";
import { h } from "./dom.js";
import { sideOf } from "./flow.js";
import { library } from "./library.js";
import { contextOf, server } from "./server.js";
import { path } from "./tree.js";
import { n, t } from "./words.js";

const WAIT_MS = 350;

export function gauge() {
  const bar = h("span", { class: "fill" });
  const label = h("span", { class: "count" });
  const element = h(
    "div",
    { class: "gauge", role: "meter", "aria-valuemin": 0 },
    h("span", { class: "rail" }, bar),
    label,
  );
  let counted = 0;
  let timer = 0;
  let last = 0;
  const show = () => display(element, bar, label, counted + written());
  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(recount, WAIT_MS);
  };
  async function recount() {
    if (server.state !== "ready" || jobsOf(library.current).length) return;
    const mine = ++last;
    const found = await count().catch(() => null);
    if (mine !== last || found === null) return;
    counted = found;
    show();
  }
  for (const name of ["thread", "draft", "settings", "server", "jobs"]) on(name, soon);
  on("node", show);
  return element;
}

async function count() {
  const side = sideOf("a");
  const nodes = path(library.current);
  const draft = (library.draft ?? "").trim();
  if (draft) nodes.push({ role: "user", text: library.draft });
  if (!nodes.some(({ text }) => text)) return 0;
  return (await call("tokenize", tokenizeBody(library.current, nodes, side))).count;
}

const written = () =>
  Math.max(0, ...jobsOf(library.current).flatMap(({ nodes }) => nodes.map(({ stats }) => stats?.tokens ?? 0)));

function display(element, bar, label, used) {
  const limit = contextOf(sideOf("a").model);
  element.hidden = !limit;
  const share = limit ? Math.min(1, used / limit) : 0;
  bar.style.inlineSize = `${share * 100}%`;
  label.textContent = t("gauge.short", { used: n(used), limit: n(limit) });
  element.className = `gauge ${share >= 1 ? "full" : share > 0.8 ? "near" : ""}`;
  const full = share >= 1 ? t("gauge.full") : "";
  if (full) label.append(" · ", full);
  const says = [t("gauge", { used: n(used), limit: n(limit) }), full].filter(Boolean).join(". ");
  element.title = says;
  element.setAttribute("aria-label", says);
  element.setAttribute("aria-valuemax", String(limit));
  element.setAttribute("aria-valuenow", String(Math.min(used, limit)));
}
