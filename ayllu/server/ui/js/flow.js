/** What a person can do with a conversation: ask, ask again, go on, edit, compare, stop. */

import { announce } from "./dom.js";
import { explained } from "./faults.js";
import { answer, jobs, jobsOf } from "./answer.js";
import { answerPlan, continuePlan, newSeed } from "./ask.js";
import { emit } from "./bus.js";
import { changed, library } from "./library.js";
import { FieldFault } from "./params.js";
import { modelOf, server } from "./server.js";
import { settings } from "./settings.js";
import { promptOf } from "./tokens.js";
import { add, choose, drop, hasMedia, tip } from "./tree.js";
import { t } from "./words.js";

/** Add what was typed and have it answered. */
export async function send(text, media = []) {
  const conversation = library.current;
  const last = tip(conversation);
  delete conversation.nodes[last.parent]?.pair;
  const node = add(conversation, last.id, "user", text, media.length ? { media } : {});
  await ask(conversation, node);
}

/** Answer below `node`: once, n times, or on both sides of a comparison. */
export async function ask(conversation, node) {
  if (!settings.compare) return once(conversation, node, sideOf("a"));
  const seed = readSeed() ?? newSeed();
  const [a, b] = ["a", "b"].map((name) => begin(conversation, node, sideOf(name), seed));
  if (a && b) node.pair = [a.nodes[0].id, b.nodes[0].id];
  choosePair(conversation, node);
  emit("thread");
  await Promise.all([a, b].filter(Boolean).map(({ run }) => run()));
}

async function once(conversation, node, side) {
  const begun = begin(conversation, node, side, newSeed());
  emit("thread");
  await begun?.run();
}

/** The nodes of the answers, and how to start them; a setting that can't be read is said at the node instead. */
function begin(conversation, parent, side, seed) {
  let plan;
  try {
    plan = answerPlan(conversation, parent.id, side, seed);
  } catch (error) {
    if (!(error instanceof FieldFault)) throw error;
    add(conversation, parent.id, "assistant", "", {
      finish: "error",
      error: { message: error.message, param: error.field, status: 0 },
    });
    return null;
  }
  const nodes = Array.from({ length: plan.body.n ?? 1 }, () =>
    add(conversation, parent.id, "assistant", "", { ids: [], model: side.model }),
  );
  choose(conversation, nodes[0].id);
  return { nodes, run: () => run(conversation, nodes, side, plan) };
}

function choosePair(conversation, node) {
  const { pair } = node;
  if (!pair) return;
  choose(conversation, pair[0]);
  node.pair = pair;
}

async function run(conversation, nodes, side, plan) {
  changed(conversation);
  announce(t("says.begun"));
  await answer({
    conversation,
    nodes,
    side,
    plan,
    resume: nodes.length > 1 ? undefined : (job) => rest(conversation, job.nodes[0], side, plan),
    onend: () => finished(conversation, nodes),
  });
}

/** The plan for what is missing of a stream that broke, with as many tokens fewer; a call is written anew. */
function rest(conversation, node, side, plan) {
  if (node.calls) {
    Object.assign(node, { text: "", ids: [], stats: { tokens: 0, first_ms: null, write_ms: 0, written: 0 } });
    delete node.calls;
    return plan;
  }
  node.ids = null;
  const again = continuePlan(conversation, node, side, plan.body.seed);
  if (plan.body.max_tokens) again.body.max_tokens = Math.max(1, plan.body.max_tokens - node.stats.tokens);
  return again;
}

function finished(conversation, nodes) {
  const [node] = nodes;
  if (node.error?.param === "response_format") server.noSchema = node.error.message;
  changed(conversation, { now: true });
  emit("settings");
  if (conversation === library.current) announce(node.error ? explained(node.error.message, node.error) : ending(node));
}

function ending({ text, calls }) {
  const called = calls ? t("calls.says", { names: calls.map(({ name }) => name).join(", ") }) : "";
  return [t("says.done"), text.slice(0, 600), called].filter(Boolean).join(" ");
}

/** Another answer to the same; one that never began makes room for it. */
export function regenerate(conversation, node) {
  const parent = conversation.nodes[node.parent];
  if (!node.text && !node.calls && node.finish === "error") drop(conversation, node);
  return ask(conversation, parent);
}

/** Write on where an answer ended. */
export async function goOn(conversation, node) {
  const side = sideOf("a");
  const prompt = node.finish === "length" && node.ids && !hasMedia(conversation, node) ? await idsBefore(conversation, node, side) : null;
  if (!prompt) node.ids = null;
  const plan = continuePlan(
    conversation,
    node,
    side,
    newSeed(),
    prompt && { ...prompt, ids: [...prompt.ids, ...node.ids] },
  );
  await run(conversation, [node], side, plan);
}

/** The prompt's ids, or null where they can't be had: then the text is sent. */
const idsBefore = (conversation, node, side) => promptOf(conversation, node, side).catch(() => null);

/** Another version that begins with these ids of the answer and goes on from there. */
export async function branchAt(conversation, node, prompt, ids, text) {
  const side = sideOf("a");
  const branch = add(conversation, node.parent, "assistant", text, { ids: [...ids] });
  emit("thread");
  if (server.eosIds.includes(ids.at(-1))) {
    Object.assign(branch, { finish: "stop", stats: { tokens: ids.length } });
    changed(conversation, { now: true });
    emit("thread");
    return;
  }
  const plan = continuePlan(conversation, branch, side, newSeed(), { ...prompt, ids: [...prompt.ids, ...ids] });
  await run(conversation, [branch], side, plan);
}

/** What the tools gave is told to the model; `node` is the answer that called them. */
export async function giveResults(conversation, node, results) {
  choose(conversation, node.id);
  const told = add(conversation, node.id, "tool", "", { results });
  await ask(conversation, told);
}

/** A new version of a message: of the person's, it is answered; of an answer, it stands as edited. */
export async function edit(conversation, node, text) {
  const branch = add(
    conversation,
    node.parent,
    node.role,
    text,
    node.role === "assistant" ? { finish: "edited", ids: null } : node.media ? { media: node.media } : {},
  );
  changed(conversation);
  emit("thread");
  if (node.role === "user") await ask(conversation, branch);
}

/** Show another version of a node. */
export function pick(conversation, id) {
  choose(conversation, id);
  changed(conversation, { touch: false });
  emit("thread");
  emit("draft");
}

/** End what is being written. */
export function stop() {
  for (const job of jobsOf(library.current)) job.controller.abort();
}

export const isBusy = () => jobsOf(library.current).length > 0;

/** An answer that a closed tab left unfinished is told as such. */
export function closeUnfinished(conversation) {
  for (const node of Object.values(conversation.nodes)) {
    if (node.role === "assistant" && !node.finish && !jobs.has(node.id)) node.finish = "stopped";
  }
}

/** The settings of a side, with the model that the server really has. */
export function sideOf(name) {
  return { ...settings.sides[name], model: modelOf(settings.sides[name]) };
}

function readSeed() {
  const value = settings.sides.a.values.seed;
  return value === undefined || value === "" ? null : Number(value);
}
