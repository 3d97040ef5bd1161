/** Colours and language, as buttons: in the list of conversations and at the head of each other room. */

import { emit } from "./bus.js";
import { h, iconButton } from "./dom.js";
import { nextTheme, THEMES } from "./look.js";
import { save, settings } from "./settings.js";
import { LANGUAGES, language, t } from "./words.js";

export function looks() {
  const theme = iconButton(THEMES[settings.theme] ?? "auto", `${t("theme")}: ${t(`theme.${settings.theme}`)}`, () =>
    set("theme", nextTheme()),
  );
  const tongue = h(
    "select",
    { "aria-label": t("language"), onchange: () => set("language", tongue.value) },
    Object.entries(LANGUAGES).map(([tag, name]) => h("option", { value: tag, lang: tag }, name)),
  );
  tongue.value = language();
  return [theme, tongue];
}

function set(name, value) {
  settings[name] = value;
  save();
  emit("language");
}
