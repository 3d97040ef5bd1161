/** What is within a line of Markdown, as plain objects: {kind: "text" | "code" | "strong" | "em" | "strike" | "link" | "break"}.

    The closing one of a mark is looked for once only: where there is none, the mark is text from then on; and the parts of
    links are looked for within a fixed distance. So hostile text costs no more than long text. */

const DEEPEST = 6;
const FARTHEST = 2000; // characters within one link
const ESCAPABLE = /[!-/:-@[-`{-~]/;
const BARE = /https?:\/\/[^\s<>"'`（），。；！？、」』】]+/y;
const MARKS = [
  ["**", "strong"],
  ["__", "strong"],
  ["~~", "strike"],
  ["*", "em"],
  ["_", "em"],
];
const SAFE = /^(?:https?:\/\/|mailto:)/i;

export function inline(text, depth = 0) {
  const found = [];
  const missing = new Set(); // marks that have no closing one in the rest of the text
  let plain = "";
  const flush = () => {
    if (plain) found.push({ kind: "text", text: plain });
    plain = "";
  };
  for (let at = 0; at < text.length;) {
    const [node, next] = readAt(text, at, depth, missing);
    if (node.kind === "text") plain += node.text;
    else {
      flush();
      found.push(node);
    }
    at = next;
  }
  flush();
  return found;
}

function readAt(text, at, depth, missing) {
  const sign = text[at];
  if (sign === "\\" && ESCAPABLE.test(text[at + 1] ?? "")) return [plainText(text[at + 1]), at + 2];
  if (sign === "\n") return [{ kind: "break" }, at + 1];
  const found =
    sign === "`"
      ? code(text, at, missing)
      : sign === "[" || (sign === "!" && text[at + 1] === "[")
        ? link(text, at, depth)
        : sign === "<"
          ? angle(text, at)
          : sign === "h"
            ? bare(text, at)
            : "*_~".includes(sign)
              ? mark(text, at, depth, missing)
              : null;
  return found ?? [plainText(sign), at + 1];
}

const plainText = (text) => ({ kind: "text", text });

function code(text, at, missing) {
  const fence = /^`+/.exec(text.slice(at, at + 32))[0];
  const end = closing(text, fence, at + fence.length, missing);
  if (end < 0) return [plainText(fence), at + fence.length];
  return [
    { kind: "code", text: text.slice(at + fence.length, end).replace(/^ (.*[^ ].*) $/s, "$1") },
    end + fence.length,
  ];
}

/** [words](address), and ![words](address), which is a link too: a page that loads pictures tells others who reads it. */
function link(text, at, depth) {
  const open = text[at] === "!" ? at + 2 : at + 1;
  const reach = text.slice(open, open + FARTHEST);
  const middle = reach.indexOf("](");
  const end = middle < 0 ? -1 : reach.indexOf(")", middle + 2);
  if (end < 0 || depth >= DEEPEST) return null;
  const address = reach
    .slice(middle + 2, end)
    .trim()
    .split(/\s/)[0]
    .replace(/^<|>$/g, "");
  const children = inline(reach.slice(0, middle) || address, depth + 1);
  const isSafe = SAFE.test(address);
  return [
    isSafe
      ? { kind: "link", address, children }
      : { kind: "group", children: [...children, plainText(` (${address})`)] },
    open + end + 1,
  ];
}

/** <address> */
function angle(text, at) {
  const reach = text.slice(at + 1, at + FARTHEST);
  const address = SAFE.test(reach) ? reach.slice(0, Math.max(0, reach.indexOf(">"))) : "";
  return address && !/\s/.test(address)
    ? [{ kind: "link", address, children: [plainText(address)] }, at + address.length + 2]
    : null;
}

/** An address that stands there by itself, without the full stop behind it. */
function bare(text, at) {
  if (/\w/.test(text[at - 1] ?? "")) return null;
  BARE.lastIndex = at;
  const found = BARE.exec(text)?.[0].slice(0, FARTHEST);
  if (!found) return null;
  let end = found.length;
  while (".,;:!?)*_".includes(found[end - 1])) end--;
  const address = found.slice(0, end);
  return [{ kind: "link", address, children: [plainText(address)] }, at + end];
}

function mark(text, at, depth, missing) {
  const [sign, kind] = MARKS.find(([one]) => text.startsWith(one, at)) ?? [];
  if (!sign || depth >= DEEPEST) return null;
  const begin = at + sign.length;
  if (/\s/.test(text[begin] ?? " ")) return [plainText(sign), begin];
  if (sign[0] === "_" && /\w/.test(text[at - 1] ?? "")) return [plainText(sign), begin];
  const end = markEnd(text, sign, begin, missing);
  if (end < 0) return [plainText(sign), begin];
  return [{ kind, children: inline(text.slice(begin, end), depth + 1) }, end + sign.length];
}

/** Where the same mark closes: after a sign that is no space, and a single * is not half of **. */
function markEnd(text, sign, begin, missing) {
  for (let end = closing(text, sign, begin + 1, missing); end >= 0; end = text.indexOf(sign, end + 1)) {
    const isHalf = sign.length === 1 && (text[end + 1] === sign || text[end - 1] === sign);
    const isWithin = sign[0] === "_" && /\w/.test(text[end + sign.length] ?? "");
    if (!isHalf && !isWithin && !/\s/.test(text[end - 1])) return end;
  }
  missing.add(sign);
  return -1;
}

function closing(text, sign, from, missing) {
  if (missing.has(sign)) return -1;
  const end = text.indexOf(sign, from);
  if (end < 0) missing.add(sign);
  return end;
}
