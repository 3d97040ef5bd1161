/** The conversations that this browser keeps, newest first, and the one on show. */

import { emit } from "./bus.js";
import { newConversation } from "./tree.js";
import * as store from "./store.js";

/** `isKept` turns false when the browser lets us store nothing. */
export const library = { all: [], current: null, isKept: true, kind: "chat" };

const SAVE_MS = 800;
const waiting = new Map();

export async function load() {
  try {
    library.all = (await store.all()).sort((a, b) => b.updated - a.updated);
  } catch {
    library.isKept = false;
  }
  begin();
}

/** Show an empty conversation; it is kept once something was written. */
export function begin(kind = library.kind) {
  library.kind = kind;
  show(newConversation(kind));
}

export function show(conversation) {
  library.current = conversation;
  emit("list");
  emit("thread");
  emit("draft");
}

/** Something changed: soon it is written down, at once with `now`. */
export function changed(conversation, { now = false, touch = true } = {}) {
  if (touch) conversation.updated = Date.now();
  if (!library.all.includes(conversation)) library.all.unshift(conversation);
  library.all.sort((a, b) => b.updated - a.updated);
  clearTimeout(waiting.get(conversation.id));
  waiting.set(
    conversation.id,
    setTimeout(() => write(conversation), now ? 0 : SAVE_MS),
  );
  emit("list");
}

export async function write(conversation) {
  clearTimeout(waiting.get(conversation.id));
  waiting.delete(conversation.id);
  if (!library.all.includes(conversation)) return;
  try {
    await store.put(conversation);
  } catch {
    library.isKept = false;
    emit("list");
  }
}

/** Everything that still waits to be written, when the tab is hidden or closed. */
export function writeAll() {
  for (const conversation of library.all.filter(({ id }) => waiting.has(id))) write(conversation);
}

export async function remove(conversation) {
  library.all = library.all.filter((one) => one !== conversation);
  if (library.current === conversation) begin();
  emit("list");
  await store.remove(conversation.id).catch(() => {});
}

const textsOf = ({ text, calls = [], results = [] }) => [text, ...calls.map((call) => call.arguments), ...results];

/** Those whose title or text holds all the words. */
export function find(words) {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  if (!wanted.length) return library.all;
  return library.all.filter((one) => {
    const text = [one.title, ...Object.values(one.nodes).flatMap(textsOf)].join("\n").toLowerCase();
    return wanted.every((word) => text.includes(word));
  });
}
