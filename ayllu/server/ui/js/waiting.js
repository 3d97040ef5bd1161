/** What stands where an answer will be: waiting for the first token, for room on a server, for a connection. */

import { jobs } from "./answer.js";
import { h, textButton } from "./dom.js";
import { t } from "./words.js";

/** Which pause the job is in, or null. */
export function pauseOf(node) {
  const job = jobs.get(node.id);
  return job && !["waiting", "streaming"].includes(job.state) ? `${job.state} ${job.until}` : null;
}

/** The words of a pause, with the seconds that are left. */
export function countdown(job) {
  return t(`wait.${job.state}`, { n: Math.max(0, Math.ceil((job.until - performance.now()) / 1000)) });
}

/** In the server's queue, or being read. */
function place(ahead) {
  if (ahead === null) return t("wait.first");
  return ahead ? t("wait.ahead", { n: ahead }) : t("wait.next");
}

/** Dots; in a pause also why, and a button that ends it. */
export function waiting(job) {
  const dots = h("span", { class: "dots", "aria-hidden": "true" }, h("i"), h("i"), h("i"));
  if (job.state === "waiting") return h("p", { class: "waiting" }, dots, place(job.ahead));
  return h(
    "p",
    { class: "waiting" },
    dots,
    h("span", { class: "left" }, countdown(job)),
    textButton(t("now"), () => job.now(), { class: "button quiet" }),
  );
}
