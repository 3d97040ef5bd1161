/** One call and the answers that it brings: streams them into their nodes, waits in queues, takes up broken streams.

    A job: {conversation, nodes, side, state, ahead, until, controller, now}; state: "waiting" | "streaming" | "queued" |
    "lost"; ahead: how many requests are before it in the server's queue, or null.
    It lives in `jobs` under the id of each of its nodes until it is over. */

import { ApiError, Lost, open } from "./api.js";
import { emit } from "./bus.js";
import { addCall } from "./calls.js";
import { fitted } from "./room.js";
import { events } from "./stream.js";

export const jobs = new Map();
const LOST_WAITS_S = [1, 2, 4, 8];
const MOST_QUEUED = 60;

/** The jobs of a conversation. */
export const jobsOf = (conversation) => [...new Set(jobs.values())].filter((job) => job.conversation === conversation);

/** Run `plan` into `nodes`, one for each choice; `resume(job)` makes the plan for the rest after a break. */
export async function answer({ conversation, nodes, side, plan, resume, onend }) {
  const job = {
    conversation,
    nodes,
    side,
    state: "waiting",
    ahead: null,
    until: 0,
    begun: performance.now(),
    controller: new AbortController(),
    now: () => {},
  };
  for (const node of nodes) {
    Object.assign(node, { finish: null, error: null, seed: plan.body.seed, model: plan.body.model ?? "" });
    node.stats = { tokens: 0, first_ms: null, write_ms: 0, written: 0, ...node.stats };
    jobs.set(node.id, job);
  }
  tell(job);
  await follow(job, plan, resume);
  for (const node of nodes) jobs.delete(node.id);
  tell(job);
  onend(job);
}

async function follow(job, plan, resume) {
  let tries = 0;
  for (;;) {
    try {
      await read(job, plan, () => {
        tries = 0;
      });
      return;
    } catch (error) {
      if (job.controller.signal.aborted) return end(job, "stopped");
      const shorter = await roomAfter(job, error, plan);
      if (shorter) {
        plan = shorter;
        continue;
      }
      const wait = waitAfter(error, tries++);
      if (wait === null) return fail(job, error);
      await pause(job, error instanceof Lost ? "lost" : "queued", wait);
      if (job.controller.signal.aborted) return end(job, "stopped");
      const rest = job.nodes.some((node) => node.stats.written) ? resume?.(job) : plan;
      if (!rest) return fail(job, error);
      plan = rest;
    }
  }
}

/** Seconds until another try, or null where there is no sense in one. */
function waitAfter(error, tries) {
  if (error instanceof Lost) return LOST_WAITS_S[tries] ?? null;
  if (error instanceof ApiError && error.status === 503 && tries < MOST_QUEUED) return error.retryAfter ?? 2;
  return null;
}

/** The same call with the tokens for which the context has room, which is noted at its answers; else null. */
async function roomAfter(job, error, plan) {
  if (error.code !== "context_length_exceeded") return null;
  const found = await fitted(plan, job.controller.signal).catch(() => null);
  if (found) for (const { stats } of job.nodes) stats.shortened = found.shortened;
  return found?.plan ?? null;
}

async function read(job, plan, onprogress) {
  Object.assign(job, { state: "waiting", ahead: null });
  job.begun = performance.now();
  tell(job);
  const response = await open(plan.path, plan.body, job.controller.signal);
  try {
    for await (const event of events(response.body, (comment) => hear(job, comment))) {
      if (event.error) throw new ApiError(event.error.code === "queue_full" ? 503 : 500, event.error);
      onprogress();
      take(job, event);
    }
  } catch (error) {
    throw error instanceof ApiError || error instanceof SyntaxError ? error : new Lost(error.detail ?? error.message);
  }
}

/** What the server tells of the queue until the first token. */
function hear(job, comment) {
  const queue = /^queue (\d{1,6})$/.exec(comment);
  if (!queue && comment !== "reading") return;
  job.ahead = queue ? Number(queue[1]) : null;
  tell(job);
}

function take(job, event) {
  for (const choice of event.choices ?? []) {
    const node = job.nodes[choice.index];
    if (!node) continue;
    const text = choice.delta?.content ?? choice.text ?? "";
    if (text || choice.token_ids?.length) count(job, node, choice.token_ids ?? []);
    node.text += text;
    for (const part of choice.delta?.tool_calls ?? []) addCall(node, part);
    if (choice.finish_reason) node.finish = choice.finish_reason;
    emit("node", node.id);
  }
  if (event.usage)
    job.nodes.forEach((node) => {
      Object.assign(node.stats, {
        prompt: event.usage.prompt_tokens,
        cached: event.usage.prompt_tokens_details?.cached_tokens ?? 0,
      });
    });
}

/** Tokens and times: the first token's wait, then what passed from the first to the last. */
function count(job, node, ids) {
  const now = performance.now();
  const { stats } = node;
  if (job.state !== "streaming") {
    job.state = "streaming";
    tell(job);
  }
  if (stats.first_ms === null) stats.first_ms = now - job.begun;
  if (stats.last !== undefined && stats.job === job.begun) {
    stats.write_ms += now - stats.last;
    stats.timed = (stats.timed ?? 0) + ids.length;
  }
  Object.assign(stats, { last: now, job: job.begun, tokens: stats.tokens + ids.length, written: stats.written + 1 });
  if (node.ids) node.ids.push(...ids);
}

function pause(job, state, seconds) {
  job.state = state;
  job.until = performance.now() + seconds * 1000;
  return new Promise((resolve) => {
    const ticks = setInterval(() => tell(job), 500);
    const go = () => {
      clearInterval(ticks);
      clearTimeout(timer);
      resolve();
    };
    const timer = setTimeout(go, seconds * 1000);
    job.now = go;
    job.controller.signal.addEventListener("abort", go, { once: true });
    tell(job);
  });
}

function end(job, finish) {
  for (const node of job.nodes) node.finish ??= finish;
}

function fail(job, error) {
  const { detail: message = error.message, status = 0, param = null, code = null } = error;
  for (const node of job.nodes) {
    if (!node.finish)
      Object.assign(node, { finish: "error", error: { message, status, param, code, lost: error instanceof Lost } });
  }
}

function tell(job) {
  for (const node of job.nodes) emit("node", node.id);
  emit("jobs");
}

const BURST = 20; // ms: tokens that came at once say nothing about how fast they were written

/** Tokens per second after the first one, or null while there is nothing to divide. */
export function speed(stats) {
  return stats?.timed > 0 && stats.write_ms > BURST ? (stats.timed * 1000) / stats.write_ms : null;
}
