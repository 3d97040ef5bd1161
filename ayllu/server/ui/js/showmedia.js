/** An image as a small picture, a sound as a player. Their bytes are in the page: nothing is loaded. */

import { h, iconButton } from "./dom.js";
import { urlOf } from "./media.js";
import { t } from "./words.js";

/** One of them; `onremove` gives it a button. */
export function shownMedia(medium, onremove = null) {
  const { kind, name } = medium;
  const what =
    kind === "image"
      ? h("img", { src: urlOf(medium), alt: t("media.image", { name }), title: name })
      : h("audio", { src: urlOf(medium), controls: true, "aria-label": t("media.sound", { name }), title: name });
  const close = onremove && iconButton("close", t("drop.remove", { name }), onremove);
  return h("figure", { class: `medium ${kind}` }, what, close);
}
