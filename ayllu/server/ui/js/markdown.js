/** Markdown to a tree of plain objects: blocks here, what is within a line in inline.js. It never sees HTML: a tag is text.

    {kind: "paragraph" | "heading" | "code" | "list" | "quote" | "table" | "rule", ...}; the reading is linear but for the
    nesting of lists and quotes, which ends at a fixed depth, so that hostile text costs no more than long text. */

import { inline } from "./inline.js";

const DEEPEST = 8;
const FENCE = /^ {0,3}(`{3,}|~{3,})/;
const HEADING = /^ {0,3}(#{1,6})(?=\s|$)/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])( {1,4}|$)/;
const DELIMITERS = /^\|?\s*:?-+:?(?:\s*\|\s*:?-+:?)*\s*\|?$/;

export function blocks(text) {
  return read(text.replace(/\r\n?/g, "\n").split("\n"), 0);
}

function read(lines, depth) {
  const found = [];
  for (let at = 0; at < lines.length;) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const [block, next] = readOne(lines, at, depth);
    found.push(block);
    at = next;
  }
  return found;
}

function readOne(lines, at, depth) {
  const line = lines[at];
  let match;
  if ((match = fence(line))) return readCode(lines, at, match);
  if ((match = HEADING.exec(line)))
    return [{ kind: "heading", level: match[1].length, children: inline(headingText(line)) }, at + 1];
  if (RULE.test(line)) return [{ kind: "rule" }, at + 1];
  if (depth < DEEPEST && QUOTE.test(line)) return readQuote(lines, at, depth);
  if (depth < DEEPEST && ITEM.test(line)) return readList(lines, at, depth);
  if (isTable(lines, at)) return readTable(lines, at);
  return readParagraph(lines, at, depth);
}

/** [marks, what stands behind them], or null: behind backticks there can be no further one. */
function fence(line) {
  const marks = FENCE.exec(line)?.[1];
  if (!marks) return null;
  const info = line.trim().slice(marks.length).trim();
  return marks[0] === "`" && info.includes("`") ? null : [marks, info];
}

/** Without the signs before it and those that may close it. No regular expression: long runs of spaces make them slow. */
function headingText(line) {
  const text = line.trim().replace(/^#+/, "").trim();
  let end = text.length;
  while (text[end - 1] === "#") end--;
  return end === 0 || text[end - 1] === " " ? text.slice(0, end).trim() : text;
}

function readCode(lines, at, [marks, info]) {
  const body = [];
  let next = at + 1;
  while (next < lines.length && !closes(lines[next], marks)) body.push(lines[next++]);
  const isOpen = next >= lines.length; // it is still being written
  return [{ kind: "code", language: info.split(/\s/)[0], text: body.join("\n"), isOpen }, next + 1];
}

function closes(line, marks) {
  const bare = line.trim();
  return bare.length >= marks.length && [...bare].every((sign) => sign === marks[0]);
}

function readQuote(lines, at, depth) {
  const body = [];
  let next = at;
  while (next < lines.length && QUOTE.test(lines[next])) body.push(lines[next++].replace(QUOTE, ""));
  return [{ kind: "quote", children: read(body, depth + 1) }, next];
}

function readList(lines, at, depth) {
  const [, , marker] = ITEM.exec(lines[at]);
  const isOrdered = marker.length > 1;
  const items = [];
  let next = at;
  while (next < lines.length) {
    const match = ITEM.exec(lines[next]);
    if (!match || match[2].length > 1 !== isOrdered || RULE.test(lines[next])) break;
    const [body, end] = itemLines(lines, next, match[0].length);
    items.push(item(body, depth));
    next = end;
  }
  return [{ kind: "list", isOrdered, start: isOrdered ? parseInt(marker, 10) : 1, items }, next];
}

/** The lines of an item without their indent: those that stand in as far as its text, and blank ones between them. */
function itemLines(lines, at, width) {
  const body = [lines[at].slice(width)];
  let next = at + 1;
  for (; next < lines.length; next++) {
    const line = lines[next];
    if (!line.trim()) {
      if (!(lines[next + 1] ?? "").startsWith(" ") || body.at(-1) === "") break;
      body.push("");
    } else if (indent(line) >= Math.min(width, 2)) {
      body.push(line.slice(Math.min(indent(line), width)));
    } else if (ITEM.test(line) || startsBlock(line) || body.at(-1) === "") {
      break;
    } else {
      body.push(line); // a lazy line of the same paragraph
    }
  }
  while (next < lines.length && !lines[next].trim() && ITEM.test(lines[next + 1] ?? "")) next++;
  return [body, next];
}

function item(body, depth) {
  const task = /^\[([ xX])\]\s+/.exec(body[0]);
  if (task) body[0] = body[0].slice(task[0].length);
  return { isDone: task ? task[1] !== " " : null, children: read(body, depth + 1) };
}

const indent = (line) => line.length - line.trimStart().length;
const startsBlock = (line) => fence(line) !== null || HEADING.test(line) || RULE.test(line) || QUOTE.test(line);

function isTable(lines, at) {
  return (
    lines[at].includes("|") &&
    at + 1 < lines.length &&
    DELIMITERS.test(lines[at + 1].trim()) &&
    cells(lines[at]).length === cells(lines[at + 1]).length
  );
}

function readTable(lines, at) {
  const aligns = cells(lines[at + 1]).map((mark) => {
    if (mark.startsWith(":") && mark.endsWith(":")) return "center";
    return mark.endsWith(":") ? "right" : "left";
  });
  const rows = [];
  let next = at + 2;
  while (next < lines.length && lines[next].includes("|")) rows.push(cells(lines[next++]));
  const row = (texts) => aligns.map((align, i) => ({ align, children: inline(texts[i] ?? "") }));
  return [{ kind: "table", head: row(cells(lines[at])), rows: rows.map(row) }, next];
}

function cells(line) {
  return line
    .trim()
    .replace(/^\|/, "")
    .replace(/(?<!\\)\|$/, "")
    .split(/(?<!\\)\|/)
    .map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function readParagraph(lines, at, depth) {
  const body = [lines[at].trim()];
  let next = at + 1;
  while (
    next < lines.length &&
    lines[next].trim() &&
    !startsBlock(lines[next]) &&
    !(depth < DEEPEST && ITEM.test(lines[next])) &&
    !isTable(lines, next)
  ) {
    body.push(lines[next++].trim());
  }
  return [{ kind: "paragraph", children: inline(body.join("\n")) }, next];
}
