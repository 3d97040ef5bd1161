/** What the page knows of the server: its models, whether they were trained to chat, and whether it answers at all. */

import { call, Lost } from "./api.js";
import { emit } from "./bus.js";

/** state: "loading" | "ready" | "lost" | "refused" */
export const server = { state: "loading", models: [], isChat: false, eosIds: [], error: "", noSchema: "" };

const WAIT_S = 3;
let timer = 0;

/** Ask for everything; while nobody answers, ask again every few seconds. */
export async function connect() {
  clearTimeout(timer);
  try {
    const [{ data }, info] = await Promise.all([call("v1/models"), call("tokenizer_info")]);
    server.models = data.map(known);
    server.isChat = Boolean(info.chat_template);
    server.eosIds = info.eos_token_ids ?? [];
    set("ready");
  } catch (error) {
    if (error instanceof Lost || error.status === 503) {
      set("lost", error.message);
      timer = setTimeout(connect, WAIT_S * 1000);
    } else {
      set("refused", error.message);
    }
  }
}

/** Adapters come and go: look again, quietly, when the page is looked at again. */
export async function renew() {
  if (server.state !== "ready") return;
  const { data } = await call("v1/models").catch(() => ({}));
  const models = data?.map(known);
  if (models && JSON.stringify(models) !== JSON.stringify(server.models)) {
    server.models = models;
    emit("server");
  }
}

function known({ id, parent, max_model_len, input_modalities: takes = ["text"] }) {
  return { id, parent, context: max_model_len, takes };
}

/** The context of a model, in tokens. */
export function contextOf(model) {
  return (server.models.find(({ id }) => id === model) ?? server.models[0])?.context ?? 0;
}

/** What a model takes: "text", "image", "audio". */
export function takesOf(model) {
  return server.models.find(({ id }) => id === model)?.takes ?? [];
}

/** The name that a side asks for: its own while the server has it, else the first. */
export function modelOf(side) {
  const known = server.models.find(({ id }) => id === side.model) ?? server.models[0];
  return known?.id ?? "";
}

function set(state, error = "") {
  Object.assign(server, { state, error });
  emit("server");
}
