/** The tokens of an answer with what else might have come, asked of the server: prompt and answer are read once more, and
    /v1/completions tells the log-probabilities by id. */

import { call } from "./api.js";
import { TEXT, tokenizeBody } from "./ask.js";
import { server } from "./server.js";
import { pathTo } from "./tree.js";

const ALTERNATIVES = 10;

/** The ids before an answer, as the server made them of the same texts. */
export async function promptOf(conversation, node, side) {
  const nodes = pathTo(conversation, node.parent);
  if (conversation.kind === "text") {
    const { tokens } = await call("tokenize", tokenizeBody(conversation, nodes, side));
    return { ids: tokens, isTranscript: false };
  }
  const { tokens } = await call("apply-template", tokenizeBody(conversation, nodes, side));
  return { ids: tokens, isTranscript: !server.isChat };
}

/** {prompt: {ids, isTranscript}, ids, entries}; an entry is [{id, text, p}], the likeliest first, for each id. */
export async function readTokens(conversation, node, side) {
  const { prompt, ids } = await split(conversation, node, side);
  const body = { prompt: [...prompt.ids, ...ids], max_tokens: 0, prompt_logprobs: ALTERNATIVES };
  if (side.model) body.model = side.model;
  const { choices } = await call(TEXT, body);
  const rows = choices[0].prompt_logprobs.slice(prompt.ids.length);
  return { prompt, ids, entries: rows.map(alternatives) };
}

/** The answer's ids as they were written; where an edit or a break lost them, as the text is split now. */
async function split(conversation, node, side) {
  const prompt = await promptOf(conversation, node, side);
  if (node.ids?.length) return { prompt, ids: node.ids };
  const { tokens } = await call(
    "tokenize",
    tokenizeBody(conversation, pathTo(conversation, node.id), side, { continues: true }),
  );
  let same = 0;
  while (same < prompt.ids.length && prompt.ids[same] === tokens[same]) same++;
  return { prompt: { ...prompt, ids: tokens.slice(0, same) }, ids: tokens.slice(same) };
}

function alternatives(row) {
  return Object.entries(row ?? {})
    .map(([id, { logprob, decoded_token: text }]) => ({ id: Number(id), text, p: Math.exp(logprob) }))
    .sort((a, b) => b.p - a.p);
}

/** The text of an answer that consists of these ids. */
export async function textOf(prompt, ids) {
  const [before, all] = await Promise.all(
    [prompt.ids, [...prompt.ids, ...ids]].map((tokens) => call("detokenize", { tokens, skip_special_tokens: true })),
  );
  const text = all.prompt.slice(before.prompt.length);
  return prompt.isTranscript ? text.trimStart() : text;
}
