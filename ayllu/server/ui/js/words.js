/** The words of the page in the reader's language: by the browser, until they choose. */

import { EN } from "./words.en.js";
import { ZH } from "./words.zh.js";
import { settings } from "./settings.js";

const TABLES = { en: EN, zh: ZH };
export const LANGUAGES = { en: "English", zh: "中文" };

export function language() {
  if (settings.language in TABLES) return settings.language;
  return (navigator.languages ?? ["en"]).map((tag) => tag.slice(0, 2)).find((tag) => tag in TABLES) ?? "en";
}

/** A room brings its own words, {en: {...}, zh: {...}}. */
export function addWords(words) {
  for (const tag of Object.keys(TABLES)) Object.assign(TABLES[tag], words[tag]);
}

/** The words for a key, with {names} filled in. */
export function t(key, values = {}) {
  const words = TABLES[language()][key] ?? EN[key] ?? key;
  return words.replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
}

/** A number as the reader writes it. */
export const n = (value, digits = 0) =>
  value.toLocaleString(language(), { maximumFractionDigits: digits, minimumFractionDigits: digits });

/** A large number in words: 8.8 million, 880万. */
export const inWords = (value) => value.toLocaleString(language(), { notation: "compact", compactDisplay: "long", maximumSignificantDigits: 2 });
