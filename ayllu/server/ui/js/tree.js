/** A conversation is a tree: each edit and each further answer is a new branch, and nothing is overwritten.

    conversation: {id, title, kind: "chat" | "text", created, updated, nodes: {root: node, ...}}
    node: {id, parent, role: "root" | "user" | "assistant" | "tool", text, children: [id], active: id | null}
    A message of a person may have `media` (media.js). An answer also has what is known of it: model, ids, finish, stats, seed, error, and its calls of tools; their results
    hang below it (calls.js). Two answers that are shown side by side stand in their parent's `pair`. */

import { messagesOf } from "./calls.js";

export const newId = () => crypto.randomUUID();

export function newConversation(kind) {
  const now = Date.now();
  const root = { id: "root", parent: null, role: "root", text: "", children: [], active: null };
  return { id: newId(), title: "", kind, created: now, updated: now, nodes: { root } };
}

/** The nodes on show, from the first message to the last. */
export function path(conversation) {
  const found = [];
  for (let node = conversation.nodes.root; node.active; found.push(node)) node = conversation.nodes[node.active];
  return found;
}

/** The nodes from the first message up to and with this one. */
export function pathTo(conversation, id) {
  const found = [];
  for (let node = conversation.nodes[id]; node.role !== "root"; node = conversation.nodes[node.parent])
    found.unshift(node);
  return found;
}

/** Whether anything up to a node is an image or a sound: ids alone don't say what it was. */
export const hasMedia = (conversation, node) => pathTo(conversation, node.id).some(({ media }) => media?.length);

/** Hang a new node under `parent` and show it. */
export function add(conversation, parent, role, text, facts = {}) {
  const node = { id: newId(), parent, role, text, children: [], active: null, ...facts };
  conversation.nodes[node.id] = node;
  conversation.nodes[parent].children.push(node.id);
  choose(conversation, node.id);
  return node;
}

/** The versions of a node, itself among them. */
export const versions = (conversation, node) => conversation.nodes[node.parent].children;

/** Show this version instead of its siblings; a pair above it is no longer shown side by side. */
export function choose(conversation, id) {
  const parent = conversation.nodes[conversation.nodes[id].parent];
  parent.active = id;
  delete parent.pair;
}

/** Take away an answer that never came to anything. */
export function drop(conversation, node) {
  const parent = conversation.nodes[node.parent];
  parent.children = parent.children.filter((id) => id !== node.id);
  parent.active = parent.children.at(-1) ?? null;
  delete parent.pair;
  delete conversation.nodes[node.id];
}

/** The last node on show, or the root. */
export function tip(conversation) {
  return path(conversation).at(-1) ?? conversation.nodes.root;
}

/** What a text conversation has written so far: turns are paragraphs, an answer goes straight on. */
export function asText(nodes) {
  return nodes.map((node, i) => (node.role === "user" && i > 0 && node.text ? `\n${node.text}` : node.text)).join("");
}

/** The messages of a chat, as the API takes them; an answer that never began is none. */
export function asMessages(nodes, system, options) {
  const turns = nodes.flatMap((node, i) => messagesOf(node, nodes[i - 1], options));
  return system ? [{ role: "system", content: system }, ...turns] : turns;
}

/** A name for what has none yet. */
export function titleOf(conversation, unnamed) {
  const node = conversation.nodes[conversation.nodes.root.active];
  const first = (node?.text.trim() || node?.media?.[0].name)?.replace(/\s+/g, " ");
  return conversation.title || (first ? [...first].slice(0, 60).join("") : unnamed);
}
