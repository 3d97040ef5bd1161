/** Calls of tools within an answer. Pure: taking them from a stream, the turns of the API, how they are shown.

    A call: {id, name, arguments}, arguments as the text of JSON that the model wrote. An answer with `calls` may have a
    child of the role "tool" whose `results` are texts, one for each call. */

import { partsOf } from "./media.js";

/** Take a part of a call out of a streamed delta: name first, then pieces of the arguments. */
export function addCall(node, { index, id, function: { name, arguments: piece = "" } }) {
  node.calls ??= [];
  node.calls[index] ??= { id: "", name: "", arguments: "" };
  const call = node.calls[index];
  if (id) call.id = id;
  if (name) call.name = name;
  call.arguments += piece;
}

/** Whether there are calls and all of them were written to their end, so that results make sense. */
export function areWhole(calls) {
  return Boolean(calls?.length) && calls.every(isWhole);
}

function isWhole(call) {
  try {
    return typeof JSON.parse(call.arguments || "{}") === "object";
  } catch {
    return false;
  }
}

/** The messages of one node; `before` is the node above it; `bare` leaves images and sounds out. Calls that were cut are left out: nobody could take them. */
export function messagesOf(node, before, { bare = false } = {}) {
  if (node.role === "tool") {
    return node.results.map((content, i) => ({ role: "tool", tool_call_id: before.calls[i].id, content }));
  }
  if (node.media?.length && !bare) return [{ role: node.role, content: partsOf(node.media, node.text) }];
  const calls = areWhole(node.calls) ? node.calls.map(asSent) : null;
  if (!node.text && !calls) return [];
  return [{ role: node.role, content: node.text || null, ...(calls ? { tool_calls: calls } : {}) }];
}

const asSent = ({ id, name, arguments: given }) => ({ id, type: "function", function: { name, arguments: given } });

/** JSON with a line for each member. It needs no end, so a call can be read while it is being written. */
export function indented(json) {
  let found = "";
  let depth = 0;
  let isText = false;
  for (let at = 0; at < json.length; at++) {
    const sign = json[at];
    if (isText) {
      found += sign === "\\" ? sign + (json[++at] ?? "") : sign;
      isText = sign !== '"';
    } else if (sign === "{" || sign === "[") {
      const end = closed(json, at + 1);
      found += end ? sign + json[end] : `${sign}\n${"  ".repeat(++depth)}`;
      at = end || at;
    } else if (sign === "}" || sign === "]") {
      found += `\n${"  ".repeat(Math.max(0, --depth))}${sign}`;
    } else if (sign === ",") {
      found += `,\n${"  ".repeat(depth)}`;
    } else if (/\S/.test(sign)) {
      found += sign === ":" ? ": " : sign;
      isText = sign === '"';
    }
  }
  return found;
}

/** Where an empty list or object ends, or 0. */
function closed(json, at) {
  while (/\s/.test(json[at] ?? "")) at++;
  return "}]".includes(json[at] ?? "-") ? at : 0;
}
