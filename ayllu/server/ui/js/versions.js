/** The buttons that go through the versions of a message. */

import { h, iconButton } from "./dom.js";
import { pick } from "./flow.js";
import { versions } from "./tree.js";
import { t } from "./words.js";

export function versionButtons(conversation, node) {
  const all = versions(conversation, node);
  if (all.length < 2) return [];
  const at = all.indexOf(node.id);
  const step = (by, drawing, label) =>
    iconButton(drawing, t(label), () => pick(conversation, all[at + by]), { disabled: !(at + by in all) });
  return [
    h(
      "span",
      { class: "versions", role: "group", "aria-label": t("version", { i: at + 1, n: all.length }) },
      step(-1, "left", "version.before"),
      h("span", { class: "count" }, `${at + 1}/${all.length}`),
      step(1, "right", "version.after"),
    ),
  ];
}
