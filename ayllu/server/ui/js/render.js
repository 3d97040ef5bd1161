/** The tree of markdown.js as elements. Blocks that stay the same while a text grows keep their elements. */

import { copy, h, iconButton } from "./dom.js";
import { blocks } from "./markdown.js";
import { t } from "./words.js";

/** Show `text` within `place`, which this function alone fills. */
export function renderInto(place, text) {
  const keys = place.keys ?? [];
  const found = blocks(text);
  place.keys = found.map((block) => JSON.stringify(block));
  let same = 0;
  while (same < found.length && keys[same] === place.keys[same]) same++;
  while (place.childNodes.length > same) place.lastChild.remove();
  place.append(...found.slice(same).map(block));
}

function block(node) {
  switch (node.kind) {
    case "heading":
      return h(`h${Math.min(6, node.level + 2)}`, {}, spans(node.children));
    case "code":
      return codeBlock(node);
    case "rule":
      return h("hr");
    case "quote":
      return h("blockquote", {}, node.children.map(block));
    case "list":
      return list(node);
    case "table":
      return table(node);
    default:
      return h("p", {}, spans(node.children));
  }
}

/** A text of code with its language and a button that copies it. */
export function codeBlock({ language, text }) {
  const button = iconButton("copy", t("copy.code"), async () => {
    await copy(text);
    button.replaceWith(done);
    setTimeout(() => done.replaceWith(button), 1500);
  });
  const done = h("span", { class: "icon-button done", role: "status" }, "✓");
  return h(
    "div",
    { class: "code" },
    h("div", { class: "code-head" }, h("span", {}, language || t("code")), button),
    h("pre", { tabindex: 0, role: "group", "aria-label": t("code") }, h("code", {}, text)),
  );
}

function list({ isOrdered, start, items }) {
  const props = isOrdered && start !== 1 ? { start: String(start) } : {};
  return h(
    isOrdered ? "ol" : "ul",
    props,
    items.map(({ isDone, children }) =>
      h(
        "li",
        isDone === null ? {} : { class: "task" },
        isDone !== null &&
          h(
            "span",
            { class: "box", role: "img", "aria-label": t(isDone ? "task.done" : "task.open") },
            isDone ? "☑" : "☐",
          ),
        children.length === 1 && children[0].kind === "paragraph" ? spans(children[0].children) : children.map(block),
      ),
    ),
  );
}

function table({ head, rows }) {
  const row = (cells, tag, props = {}) =>
    h(
      "tr",
      {},
      cells.map(({ align, children }) => h(tag, { ...props, class: align }, spans(children))),
    );
  return h(
    "div",
    { class: "table", tabindex: 0, role: "group", "aria-label": t("table") },
    h(
      "table",
      {},
      h("thead", {}, row(head, "th", { scope: "col" })),
      h(
        "tbody",
        {},
        rows.map((cells) => row(cells, "td")),
      ),
    ),
  );
}

const spans = (nodes) => nodes.flatMap(span);
const TAGS = { strong: "strong", em: "em", strike: "s" };

function span(node) {
  switch (node.kind) {
    case "text":
      return document.createTextNode(node.text);
    case "break":
      return h("br");
    case "code":
      return h("code", {}, node.text);
    case "link":
      return h(
        "a",
        { href: node.address, target: "_blank", rel: "noopener noreferrer nofollow" },
        spans(node.children),
      );
    case "group":
      return spans(node.children);
    default:
      return h(TAGS[node.kind], {}, spans(node.children));
  }
}
