/** The room that was there first: conversations. */

import { composer } from "../composer.js";
import { h } from "../dom.js";
import { drawer } from "../drawer.js";
import { header } from "../header.js";
import { sidebar } from "../sidebar.js";
import { thread } from "../thread.js";

export const chat = {
  name: "chat",
  icon: "chat",
  draw: () => [sidebar(), h("div", { class: "middle" }, header(), thread(), composer()), drawer()],
};
