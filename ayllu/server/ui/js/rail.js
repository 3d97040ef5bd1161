/** The way between the rooms: at the side, and on a phone below. */

import { h, icon } from "./dom.js";
import { here, ROOMS } from "./rooms.js";
import { t } from "./words.js";

export function rail() {
  if (ROOMS.length < 2) return "";
  const { room } = here();
  return h(
    "nav",
    { class: "rail", "aria-label": t("rooms") },
    ROOMS.map(({ name, icon: drawing }) =>
      h(
        "a",
        { href: `#/${name}`, class: "tab", "aria-current": name === room.name ? "page" : null },
        icon(drawing),
        h("span", {}, t(`room.${name}`)),
      ),
    ),
  );
}
