/** The conversation on show, from its first message to its last; or, where there is none yet, how to begin. */

import { on } from "./bus.js";
import { h, textButton } from "./dom.js";
import { pick } from "./flow.js";
import { library } from "./library.js";
import { message } from "./message.js";
import { results } from "./results.js";
import { path } from "./tree.js";
import { welcome } from "./welcome.js";
import { t } from "./words.js";

const NEAR = 80; // pixels from the end: who is nearer follows what is written

let views = new Map();

export function thread() {
  const list = h("div", { class: "thread", role: "log", "aria-live": "off", "aria-label": t("thread") });
  const scroll = h("main", { class: "scroll", tabindex: -1 }, list);
  const dirty = new Set();
  let follows = true;
  let frame = 0;
  const toEnd = () => {
    if (follows) scroll.scrollTop = scroll.scrollHeight;
  };
  const paint = () => {
    frame = 0;
    for (const id of dirty) views.get(id)?.update();
    dirty.clear();
    toEnd();
  };
  scroll.addEventListener("scroll", () => {
    follows = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < NEAR;
  });
  on("node", (id) => {
    dirty.add(id);
    frame ||= requestAnimationFrame(paint);
  });
  on("jobs", () => {
    for (const id of views.keys()) dirty.add(id);
    frame ||= requestAnimationFrame(paint);
  });
  on("thread", () => {
    draw(list);
    requestAnimationFrame(() => {
      follows = true; // only here: a browser that moves what it drew anew tells of it as of a person's scrolling
      toEnd();
    });
  });
  const resized = new ResizeObserver(toEnd); // a drawer that opens makes lines of text wrap
  for (const part of [scroll, list]) resized.observe(part);
  on("server", () => {
    if (!views.size) draw(list);
  });
  on("edit.last", () =>
    [...views.values()]
      .filter(({ node }) => node.role === "user")
      .at(-1)
      ?.edit(),
  );
  return scroll;
}

function draw(list) {
  const conversation = library.current;
  const nodes = path(conversation);
  views = new Map();
  list.className = `thread ${conversation.kind}`;
  if (!nodes.length) return list.replaceChildren(welcome());
  const parts = nodes
    .filter((node) => node.role === "user" || nodes[0] === node)
    .map((node, i, firsts) => {
      const to = i + 1 < firsts.length ? nodes.indexOf(firsts[i + 1]) : nodes.length;
      return turn(conversation, nodes.slice(nodes.indexOf(node), to));
    });
  list.replaceChildren(...parts);
}

/** What a person wrote, and the answer, or the two answers, to it. */
function turn(conversation, nodes) {
  if (conversation.kind === "text" && !nodes[0].pair) {
    const [mine, ...answers] = nodes.map((node) => view(conversation, node));
    return h(
      "article",
      { class: "turn" },
      h(
        "div",
        { class: "prose" },
        mine.body,
        answers.map(({ body }) => body),
      ),
      mine.under,
      answers.map(({ under }) => under),
    );
  }
  const parts = nodes.map((node, i) => {
    const pair = nodes[i - 1]?.pair?.map((id) => view(conversation, conversation.nodes[id]));
    return pair ? columns(conversation, pair) : section(view(conversation, node));
  });
  return h("article", { class: "turn" }, parts);
}

function view(conversation, node) {
  const made = node.role === "tool" ? results(conversation, node) : message(conversation, node);
  views.set(node.id, made);
  return made;
}

/** Headings that only screen readers show lead from message to message. */
function section({ node, media, body, under }) {
  const label = t({ user: "you", tool: "calls.told" }[node.role] ?? "answer");
  const head = h("h2", { class: "unseen" }, label);
  return h("section", { class: `message ${node.role}`, role: "group", "aria-label": label }, head, media ?? "", body, under);
}

function columns(conversation, answers) {
  return h(
    "div",
    { class: "pair", role: "group", "aria-label": t("pair") },
    answers.map((one, i) => {
      const name = t(`side.${"ab"[i]}`);
      const head = h(
        "div",
        { class: "row" },
        h("span", { class: "tag" }, name),
        h("span", { class: "grow model-name" }, one.node.model ?? ""),
        textButton(t("use"), () => pick(conversation, one.node.id), { class: "button quiet small", icon: "check" }),
      );
      return h(
        "section",
        { class: "message assistant", role: "group", "aria-label": `${t("answer")} ${name}` },
        h("h2", { class: "unseen" }, `${t("answer")} ${name}`),
        head,
        one.body,
        one.under,
      );
    }),
  );
}
