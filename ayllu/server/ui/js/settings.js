/** What a person has set, kept in this browser: one set for each side of a comparison, presets, language, theme. */

import { PARAMETERS, PRESETS } from "./params.js";

const PLACE = "ayllu.settings";
const SIDES = ["a", "b"];

const fresh = () => ({ model: "", system: "", schema: "", tools: "", choice: "auto", values: { ...PRESETS.balanced } });

/** {sides: {a, b}, presets: {name: values}, compare, language, theme} */
export const settings = load();

export function save() {
  try {
    localStorage.setItem(PLACE, JSON.stringify(settings));
  } catch {
    /* a private window keeps nothing: the page works on */
  }
}

/** All presets by name: those of the page, then a person's own. */
export const presets = () => ({ ...PRESETS, ...settings.presets });

/** The preset whose values these are, or null. */
export function presetOf(values) {
  const same = (one) => PARAMETERS.every(({ name }) => String(one[name] ?? "") === String(values[name] ?? ""));
  return Object.keys(presets()).find((name) => same(presets()[name])) ?? null;
}

export function reset(side) {
  settings.sides[side] = { ...fresh(), model: settings.sides[side].model };
  save();
}

function load() {
  const found = { sides: { a: fresh(), b: fresh() }, presets: {}, compare: false, language: "", theme: "auto" };
  let kept = {};
  try {
    kept = JSON.parse(localStorage.getItem(PLACE)) ?? {};
  } catch {
    /* what can't be read is begun anew */
  }
  for (const side of SIDES) Object.assign(found.sides[side], texts(kept.sides?.[side]), values(kept.sides?.[side]));
  if (typeof kept.presets === "object") Object.assign(found.presets, kept.presets);
  for (const name of ["compare", "language", "theme"]) {
    if (typeof kept[name] === typeof found[name]) found[name] = kept[name];
  }
  return found;
}

function texts(side = {}) {
  return Object.fromEntries(
    ["model", "system", "schema", "tools", "choice"]
      .filter((name) => typeof side[name] === "string")
      .map((name) => [name, side[name]]),
  );
}

function values(side = {}) {
  return side.values && typeof side.values === "object" ? { values: { ...side.values } } : {};
}
