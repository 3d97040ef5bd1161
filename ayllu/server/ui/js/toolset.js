/** The tools of a side, as a person writes them: a JSON list of functions, in OpenAI's form or each one bare. Pure. */

import { FieldFault } from "./params.js";
import { t } from "./words.js";

const NAME = /^[\w.:/-]{1,128}$/;
export const CHOICES = ["auto", "none", "required"];

export const EXAMPLE = JSON.stringify(
  [
    {
      name: "get_weather",
      description: "The weather in a city",
      parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
    },
  ],
  null,
  2,
);

/** The functions as the API takes them, or a FieldFault that says which one is wrong and how it should be. */
export function readTools(text) {
  if (!text.trim()) return [];
  let found;
  try {
    found = JSON.parse(text);
  } catch (error) {
    throw new FieldFault("tools", error.message);
  }
  if (!Array.isArray(found)) throw new FieldFault("tools", t("tools.list"));
  const functions = found.map((one, i) =>
    readFunction(one?.type === "function" && one.function ? one.function : one, i),
  );
  const names = functions.map(({ name }) => name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice) throw new FieldFault("tools", t("tools.twice", { name: twice }));
  return functions.map((one) => ({ type: "function", function: one }));
}

function readFunction(one, i) {
  if (typeof one?.name !== "string" || !NAME.test(one.name)) {
    throw new FieldFault("tools", t("tools.name", { i: i + 1 }));
  }
  const { parameters } = one;
  const isSchema = parameters && typeof parameters === "object" && (parameters.type ?? "object") === "object";
  if (parameters !== undefined && (!isSchema || Array.isArray(parameters))) {
    throw new FieldFault("tools", t("tools.parameters", { name: one.name }));
  }
  return one;
}

/** What a call says of tools: nothing where there are none. */
export function toolFields(side) {
  const tools = readTools(side.tools);
  if (!tools.length) return {};
  if (CHOICES.includes(side.choice)) return { tools, tool_choice: side.choice };
  if (!tools.some((one) => one.function.name === side.choice)) {
    throw new FieldFault("tool_choice", t("tools.unknown", { name: side.choice }));
  }
  return { tools, tool_choice: { type: "function", function: { name: side.choice } } };
}
