/** What the server says of an error, in the reader's language, with its own words on the next line. */

import { CODES, FAULTS } from "./faults.zh.js";
import { language } from "./words.js";

const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
const FORMS = Object.entries(FAULTS).map(([english, chinese]) => {
  const places = english.split("{}").map(escaped).join("(.*?)");
  return { form: new RegExp(`^${places}$`, "s"), chinese };
});

/** `code`, `status` and `param`, the name of a field, are the answer's, where the words came with one. */
export function explained(message, { code = null, status = 0, param = null } = {}) {
  if (language() !== "zh" || typeof message !== "string" || !/[a-z]{2}/i.test(message)) return message;
  const said = inChinese(message, param) ?? CODES[code] ?? CODES[status];
  return said ? `${said}\n${message}` : message;
}

/** The same where the Chinese says all, as of short notes: without the English. */
export const noted = (message) => (language() === "zh" && inChinese(message)) || message;

/** The whole; else what stands behind the name of a file or field; else several reasons in a row. */
function inChinese(message, param) {
  for (const { form, chinese } of FORMS) {
    const found = form.exec(message);
    if (found) return chinese.replace(/\{(\d)\}/g, (_, place) => FAULTS[found[place]] ?? found[place]);
  }
  const [, name, rest] = /^(.{1,300}?): (.+)$/s.exec(message) ?? [];
  const said = rest && inChinese(rest);
  if (said) return name === param ? said : `${name}：${said}`;
  const [first, ...others] = message.split("; ");
  const begins = others.length > 0 && inChinese(first);
  return begins ? [begins, ...others.map((one) => inChinese(one) ?? one)].join("；") : null;
}
