/** What the Write room holds and does: a brief, a text with its versions, and the calls to the server. It stays while
    other rooms are looked at; views are told by "write". */

import { ApiError, call, open } from "../api.js";
import { emit } from "../bus.js";
import { announce } from "../dom.js";
import { events } from "../stream.js";
import { t } from "../words.js";

const BRIEF = { topic: "", keywords: "", kind: "article", language: "auto", length: "", audience: "", tone: "", points: "", forbidden: "", outline: "" };

export const state = { brief: { ...BRIEF }, sources: [], mode: "read", ...blank() };

function blank() {
  return { outline: [], section: -1, text: "", checks: null, draft: null, versions: [], titles: [], diff: null, error: "", ending: null };
}

export const isBusy = () => state.ending !== null;
const lines = (text, between = "\n") => text.split(between).map((line) => line.trim()).filter(Boolean);
const keywordsOf = (text) => lines(text, /[,;，；、]/);

/** The brief as the server takes it. */
export function briefOf({ topic, keywords, kind, language, length, audience, tone, points, forbidden }) {
  const brief = { topic, keywords: keywordsOf(keywords), kind, language, audience, tone, points: lines(points), forbidden: lines(forbidden) };
  return length === "" ? brief : { ...brief, length: Number(length) };
}

export function clear() {
  state.ending?.abort();
  Object.assign(state, blank());
  location.hash = "#/write";
  emit("write");
}

/** Write a new text. */
export function begin() {
  Object.assign(state, blank(), { mode: "read" });
  const parts = [];
  const shown = () => {
    const heads = state.outline.length > 1;
    state.text = [`# ${state.brief.topic.trim() || keywordsOf(state.brief.keywords).join(", ")}`, ...parts.flatMap((text, i) => [heads && `## ${state.outline[i]}`, text])]
      .filter(Boolean)
      .join("\n\n");
  };
  const body = { brief: briefOf(state.brief), outline: lines(state.brief.outline), sources: state.sources.map(({ id }) => id) };
  return run("v1/write", body, (event) => {
    if (event.type === "outline") state.outline = event.outline;
    if (event.type === "section") [parts[event.index], state.section] = ["", event.index];
    if (event.type === "text") parts[event.index] += event.text;
    if (event.type !== "done") return shown();
    Object.assign(state, { text: event.text, checks: event.checks, draft: event.draft });
    announce(t("write.done"));
    if (event.draft) settle(event.draft);
  });
}

/** Change the text between two places, or all of it. */
export async function revise(action, from, to, tone = "") {
  const isAll = from === to;
  const whole = state.text;
  const part = isAll ? whole : whole.slice(from, to);
  const [head, rest] = isAll ? ["", ""] : [whole.slice(0, from), whole.slice(to)];
  let added = "";
  state.titles = [];
  const done = await run("v1/write/revise", { text: part, action, tone }, (event) => {
    if (event.type === "text") added += event.text;
    if (action === "titles") state.titles = lines(added);
    else state.text = action === "continue" ? `${head}${part.trimEnd()}\n\n${added}${rest}` : head + added + rest;
  });
  if (!done && !added) state.text = whole;
  if (action !== "titles" && state.text !== whole) await keep(t(`write.do.${action}`));
}

/** Keep the text as a version, and check it. */
export async function keep(note = "") {
  if (!state.draft) return check();
  await trying(async () => {
    await call(`v1/write/drafts/${state.draft}`, { text: state.text, note });
    await load(state.draft);
  });
  return check();
}

export const check = () =>
  trying(async () => {
    const sources = state.sources.map(({ id }) => id);
    state.checks = await call("v1/write/check", { text: state.text, brief: briefOf(state.brief), sources });
  });

/** Open a draft; its last version is on show, or the one that is asked for. */
export const show = (draft) =>
  trying(async () => {
    state.ending?.abort();
    Object.assign(state, blank());
    await load(draft);
    state.text = state.versions.at(-1).text;
    settle(draft);
    await check();
  });

export const take = (version) => {
  Object.assign(state, { text: version.text, diff: null });
  emit("write");
  return check();
};

export const compare = (old, now) =>
  trying(async () => {
    state.diff = (await call("v1/write/diff", { old: old.text, new: now.text })).changes;
  });

/** The bytes of a file. */
export async function exported(format) {
  const response = await open("v1/write/export", { text: state.text, format, title: titleOf() });
  return response.blob();
}

export const titleOf = () => /^# +(.+)$/m.exec(state.text)?.[1] ?? state.brief.topic;

function settle(draft) {
  if (location.hash.startsWith("#/write")) history.replaceState(null, "", `#/write/${draft}`); // a reload finds it
  load(draft).then(() => emit("write"), () => {});
}

async function load(draft) {
  const { brief, versions } = await call(`v1/write/drafts/${draft}`);
  const texts = { keywords: (brief.keywords ?? []).join(", "), points: brief.points.join("\n"), forbidden: brief.forbidden.join("\n"), length: brief.length ?? "" };
  if (draft !== state.draft) state.brief = { ...BRIEF, ...brief, ...texts };
  Object.assign(state, { draft, versions, diff: null });
}

async function trying(work) {
  try {
    state.error = "";
    await work();
  } catch (error) {
    state.error = error.message;
  }
  emit("write");
}

/** Read a stream; whether it came to its end. */
async function run(path, body, onevent) {
  const ending = new AbortController();
  Object.assign(state, { ending, error: "", diff: null });
  emit("write");
  let isWhole = false;
  try {
    const response = await open(path, { ...body, stream: true }, ending.signal);
    for await (const event of events(response.body)) {
      if (event.error) throw new ApiError(0, event.error);
      onevent(event);
      isWhole = event.type === "done";
      emit("write");
    }
  } catch (error) {
    if (!ending.signal.aborted) state.error = t("write.failed", { why: error.message });
  }
  if (state.ending === ending) Object.assign(state, { ending: null, section: -1 });
  emit("write");
  return isWhole;
}
