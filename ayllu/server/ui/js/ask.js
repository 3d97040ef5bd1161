/** From a conversation and settings to the body of a call. Pure: what it needs to know is handed in.

    A plan is {path, body}. `server` is {models, isChat, eosIds}: see server.js. */

import { PARAMETERS, read, readObject } from "./params.js";
import { toolFields } from "./toolset.js";
import { asMessages, asText, pathTo } from "./tree.js";

export const CHAT = "v1/chat/completions";
export const TEXT = "v1/completions";
const TURN_END = "\nUser:"; // ends an answer of a model that was never trained to chat

/** The sampling parameters of a call, every one that was set. */
export function parameters(side, kind) {
  const found = {};
  for (const parameter of PARAMETERS) {
    const value = read(parameter, side.values[parameter.name]);
    if (value !== undefined && !(parameter.chatOnly && kind !== "chat")) found[parameter.name] = value;
  }
  if (side.schema.trim()) {
    const schema = readObject("schema", side.schema);
    found.response_format = { type: "json_schema", json_schema: { name: "answer", schema, strict: true } };
  }
  return kind === "chat" ? { ...found, ...toolFields(side) } : found;
}

/** A new answer below `parent`. */
export function answerPlan(conversation, parent, side, seed) {
  const nodes = pathTo(conversation, parent);
  const base = common(side, conversation.kind, seed);
  if (conversation.kind === "chat") return { path: CHAT, body: { ...base, messages: asMessages(nodes, side.system) } };
  return { path: TEXT, body: { ...base, prompt: asText(nodes) } };
}

/** The rest of an answer: from its ids where they are known and complete, else from its text. */
export function continuePlan(conversation, node, side, seed, prompt = null) {
  const base = { ...common(side, conversation.kind, seed), n: 1 };
  if (prompt) return idPlan(base, prompt, conversation.kind);
  const nodes = pathTo(conversation, node.id);
  if (conversation.kind === "text") return { path: TEXT, body: { ...base, prompt: asText(nodes) } };
  const messages = asMessages(nodes, side.system);
  return { path: CHAT, body: { ...base, messages, continue_final_message: true, add_generation_prompt: false } };
}

function idPlan({ chat_template_kwargs, tools, tool_choice, ...base }, prompt, kind) {
  const stop = kind === "chat" && prompt.isTranscript ? [...(base.stop ?? []), TURN_END] : base.stop;
  return { path: TEXT, body: { ...base, ...(stop ? { stop } : {}), prompt: prompt.ids } };
}

function common(side, kind, seed) {
  const found = {
    stream: true,
    stream_options: { include_usage: true },
    return_token_ids: true,
    seed,
    ...parameters(side, kind),
  };
  if (side.model) found.model = side.model;
  if (kind === "text") found.max_tokens ??= 256;
  return found;
}

/** What /tokenize and /apply-template are asked, to count or to get the ids of a prompt; images and sounds aren't sent. */
export function tokenizeBody(conversation, nodes, side, { continues = false } = {}) {
  if (conversation.kind === "text") return { prompt: asText(nodes) };
  const { chat_template_kwargs, tools } = parameters(side, conversation.kind);
  const messages = asMessages(nodes, side.system, { bare: true });
  const body = { messages, continue_final_message: continues, add_generation_prompt: !continues };
  return { ...body, ...(tools ? { tools } : {}), ...(chat_template_kwargs ? { chat_template_kwargs } : {}) };
}

/** A seed for an answer whose settings name none, so that it can be made again. */
export const newSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];
