/** Dark or light, as the system or as chosen. */

import { settings } from "./settings.js";

export const THEMES = { auto: "auto", light: "sun", dark: "moon" }; // name: its drawing

export function applyTheme() {
  const { dataset } = document.documentElement;
  if (settings.theme === "light" || settings.theme === "dark") dataset.theme = settings.theme;
  else delete dataset.theme;
}

/** The next theme in turn. */
export function nextTheme() {
  const names = Object.keys(THEMES);
  return names[(names.indexOf(settings.theme) + 1) % names.length];
}
