/** Every parameter of sampling that the server takes: how it is asked for, and how it is read. Empty: the model's own.
    `slider` is where the slider stands then. */

const number = (name, min, max, step, more = {}) => ({ name, kind: "number", min, max, step, ...more });

export const PARAMETERS = [
  number("temperature", 0, 2, 0.05, { slider: 1, group: "choice" }),
  number("top_p", 0.01, 1, 0.01, { slider: 1, group: "choice" }),
  number("min_p", 0, 1, 0.01, { slider: 0, group: "choice" }),
  number("top_k", 0, 100000, 1, { group: "choice" }),
  number("typical_p", 0.01, 1, 0.01, { group: "choice" }),
  number("repetition_penalty", 0.01, 2, 0.01, { group: "repeats" }),
  number("presence_penalty", -2, 2, 0.1, { group: "repeats" }),
  number("frequency_penalty", -2, 2, 0.1, { group: "repeats" }),
  number("max_tokens", 1, 1000000, 1, { group: "length" }),
  number("min_tokens", 0, 1000000, 1, { group: "length" }),
  number("n", 1, 16, 1, { group: "length" }),
  { name: "stop", kind: "lines", group: "length" },
  { name: "stop_token_ids", kind: "ids", group: "length" },
  { name: "ignore_eos", kind: "switch", group: "length" },
  number("seed", 0, Number.MAX_SAFE_INTEGER, 1, { group: "exact" }),
  { name: "logit_bias", kind: "json", group: "exact" },
  { name: "chat_template_kwargs", kind: "json", group: "exact", chatOnly: true },
];

export const GROUPS = ["choice", "repeats", "length", "exact"];

export const PRESETS = {
  balanced: { temperature: 0.8, top_p: 0.95, max_tokens: 256 },
  precise: { temperature: 0, max_tokens: 256 },
  lively: { temperature: 1.1, min_p: 0.05, max_tokens: 256 },
  model: {},
};

/** A field that doesn't say what it should. */
export class FieldFault extends Error {
  constructor(name, reason) {
    super(reason);
    this.field = name;
  }
}

/** The parameter as the API takes it, or undefined where nothing was said. */
export function read(parameter, value) {
  if (value === undefined || value === null || value === "" || value === false) return undefined;
  switch (parameter.kind) {
    case "number":
      return readNumber(parameter, value);
    case "switch":
      return true;
    case "lines":
      return value
        .split("\n")
        .filter(Boolean)
        .map((line) => line.replaceAll("\\n", "\n"));
    case "ids":
      return value
        .split(/[\s,]+/)
        .filter(Boolean)
        .map((id) => readNumber({ ...parameter, min: 0, max: 2 ** 31 - 1, step: 1 }, id));
    case "json":
      return readObject(parameter.name, value);
  }
}

function readNumber({ name, min, max, step }, value) {
  const found = Number(value);
  if (!Number.isFinite(found) || found < min || found > max || (step === 1 && !Number.isInteger(found))) {
    throw new FieldFault(name, `${value}: ${min} … ${max}`);
  }
  return found;
}

/** An object in JSON. */
export function readObject(name, text) {
  let found;
  try {
    found = JSON.parse(text);
  } catch (error) {
    throw new FieldFault(name, error.message);
  }
  if (found === null || typeof found !== "object" || Array.isArray(found)) throw new FieldFault(name, "{ … }");
  return found;
}
