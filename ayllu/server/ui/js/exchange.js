/** Conversations as files, and back. A file may come from anyone: only known fields of the right kind are taken over. */

import { indented } from "./calls.js";
import { MOST } from "./media.js";
import { asText, newId, path } from "./tree.js";

const FORMAT = "ayllu-conversations";
const MOST_BYTES = 64 * 2 ** 20;
const MOST_NODES = 20_000;
const MOST_CALLS = 128;
const TYPES = { image: /^image\/(png|jpeg|webp|gif)$/, audio: /^audio\/wav$/ };
const ROLES = new Set(["root", "user", "assistant", "tool"]);

export function asJson(conversations) {
  return JSON.stringify({ format: FORMAT, version: 1, conversations }, null, 1);
}

/** The branch on show, as a person would write it down. */
export function asMarkdown(conversation, title) {
  const nodes = path(conversation);
  if (conversation.kind === "text") return `# ${title}\n\n${asText(nodes)}\n`;
  const turns = nodes.flatMap((node, i) => turnsOf(node, nodes[i - 1]));
  return `# ${title}\n\n${turns.join("\n\n")}\n`;
}

function turnsOf({ role, text, model, calls = [], results = [], media = [] }, before) {
  if (role === "tool") return results.map((one, i) => `## Result of ${before.calls[i].name}\n\n${fenced("", one)}`);
  const called = calls.map((call) => `Calls \`${call.name}\`\n\n${fenced("json", indented(call.arguments || "{}"))}`);
  return [`## ${role === "user" ? "User" : model || "Assistant"}`, ...media.map(({ kind, name }) => `(${kind}: ${name})`), text, ...called].filter(Boolean).join("\n\n");
}

/** A block of code whose fence is longer than any within it. */
function fenced(language, text) {
  const longest = Math.max(2, ...(text.match(/`+/g) ?? []).map((one) => one.length));
  const fence = "`".repeat(longest + 1);
  return `${fence}${language}\n${text}\n${fence}`;
}

/** A name that every file system takes. */
export function fileName(title, ending) {
  const name = [...title.replace(/[^\p{L}\p{N} _-]+/gu, " ").trim()].slice(0, 60).join("") || "ayllu";
  return `${name}.${ending}`;
}

/** The conversations of a file; one whose id is in `taken` gets a new one. */
export async function fromFile(file, taken) {
  if (file.size > MOST_BYTES) throw new Error(`${file.size} > ${MOST_BYTES} bytes`);
  const found = JSON.parse(await file.text());
  if (found?.format !== FORMAT || !Array.isArray(found.conversations)) throw new Error(`format: "${FORMAT}"?`);
  return found.conversations.map((one, i) => {
    const conversation = clean(one, `conversations[${i}]`);
    if (taken.has(conversation.id)) conversation.id = newId();
    taken.add(conversation.id);
    return conversation;
  });
}

function clean(one, where) {
  const given = one?.nodes;
  need(given && typeof given === "object" && !Array.isArray(given), `${where}.nodes`);
  const ids = Object.keys(given);
  need(ids.length <= MOST_NODES && Object.hasOwn(given, "root"), `${where}.nodes`);
  const nodes = Object.fromEntries(
    ids.map((id) => [id, cleanNode(given[id], id, given, `${where}.nodes.${id.slice(0, 40)}`)]),
  );
  need(reached(nodes) === ids.length, `${where}.nodes: no tree`);
  return {
    id: text(one.id, 100) || newId(),
    title: text(one.title, 400),
    kind: one.kind === "text" ? "text" : "chat",
    created: time(one.created),
    updated: time(one.updated),
    nodes,
  };
}

function cleanNode(node, id, all, where) {
  need(/^[\w-]{1,64}$/.test(id) && node && ROLES.has(node.role) && (node.role === "root") === (id === "root"), where);
  const { children } = node;
  const isChild = (child) => typeof child === "string" && Object.hasOwn(all, child) && all[child]?.parent === id;
  need(
    Array.isArray(children) && children.every(isChild) && new Set(children).size === children.length,
    `${where}.children`,
  );
  need(
    id === "root" ? node.parent === null : Object.hasOwn(all, node.parent) && all[node.parent].children?.includes?.(id),
    `${where}.parent`,
  );
  need(node.children.length ? node.children.includes(node.active) : !node.active, `${where}.active`);
  const kept = {
    id,
    parent: node.parent,
    role: node.role,
    text: text(node.text, MOST_BYTES),
    children: [...node.children],
    active: node.active || null,
  };
  if (node.role === "tool") {
    const { calls } = all[node.parent];
    need(
      Array.isArray(calls) && Array.isArray(node.results) && node.results.length === calls.length,
      `${where}.results`,
    );
    return { ...kept, results: node.results.map((one) => text(one, MOST_BYTES)) };
  }
  const media = node.role === "user" ? cleanMedia(node.media, `${where}.media`) : [];
  if (node.role !== "assistant") return media.length ? { ...kept, media } : kept;
  const calls = cleanCalls(node.calls, `${where}.calls`);
  const isIds = Array.isArray(node.ids) && node.ids.every((one) => Number.isInteger(one) && one >= 0);
  return {
    ...kept,
    model: text(node.model, 256),
    finish: text(node.finish, 20) || "stopped",
    seed: number(node.seed),
    ids: isIds ? [...node.ids] : null,
    ...(calls.length ? { calls } : {}),
    stats: cleanStats(node.stats),
  };
}

function cleanCalls(calls, where) {
  need(calls === undefined || (Array.isArray(calls) && calls.length <= MOST_CALLS), where);
  return (calls ?? []).map((call) => ({
    id: text(call?.id, 256),
    name: text(call?.name, 128),
    arguments: text(call?.arguments, MOST_BYTES),
  }));
}

function cleanMedia(media, where) {
  need(media === undefined || (Array.isArray(media) && media.length <= MOST), where);
  return (media ?? []).map(({ kind, type, name, data }) => {
    need(Object.hasOwn(TYPES, kind) && TYPES[kind].test(type) && /^[A-Za-z0-9+/]+={0,2}$/.test(data), where);
    return { kind, type, name: text(name, 256), data: text(data, MOST_BYTES) };
  });
}

function cleanStats(stats) {
  const names = ["tokens", "first_ms", "write_ms", "timed", "prompt", "cached"];
  return Object.fromEntries(names.map((name) => [name, number(stats?.[name])]).filter(([, value]) => value !== null));
}

/** How many nodes hang on the root: fewer than there are where some go round in a circle. */
function reached(nodes) {
  const seen = new Set();
  for (const todo = ["root"]; todo.length;) {
    const id = todo.pop();
    if (!seen.has(id)) todo.push(...nodes[id].children);
    seen.add(id);
  }
  return seen.size;
}

function need(holds, where) {
  if (!holds) throw new Error(where);
}

const text = (value, most) => (typeof value === "string" ? value.slice(0, most) : "");
const number = (value) => (Number.isFinite(value) ? value : null);
const time = (value) => (Number.isFinite(value) && value > 0 ? Math.min(value, Date.now()) : Date.now());
