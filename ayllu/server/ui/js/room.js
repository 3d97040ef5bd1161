/** Room in the context: a call that asks for more tokens than are left is made again with as many as there are. */

import { call } from "./api.js";
import { contextOf } from "./server.js";

/** {plan, shortened: {room, asked}} for a plan that the server found too long; null where its prompt alone is too long,
    or where it asks for no number of tokens. */
export async function fitted(plan, signal) {
  const { max_tokens: asked, model, prompt, messages, continue_final_message, add_generation_prompt } = plan.body;
  if (!asked) return null;
  const { tools, chat_template_kwargs } = plan.body;
  const chat = { messages, continue_final_message, add_generation_prompt, tools, chat_template_kwargs };
  const used = Array.isArray(prompt)
    ? prompt.length
    : (await call("tokenize", prompt === undefined ? chat : { prompt }, signal)).count;
  const room = contextOf(model) - used;
  if (room < 1 || room >= asked) return null;
  return { plan: { ...plan, body: { ...plan.body, max_tokens: room } }, shortened: { room, asked } };
}
