/** Jobs as cards: how far each is, a way to cancel it, what came of it. They are the server's, so a reload finds them. */

import { call, fetchFile, Lost, remove } from "./api.js";
import { announce, h, iconButton, saveBlob, textButton, toast } from "./dom.js";
import { explained } from "./faults.js";
import { size } from "./roompage.js";
import { n, t } from "./words.js";

const EVERY_MS = 1000;
const isLive = ({ state }) => state === "queued" || state === "running";

/** All jobs of a kind, newest first: {element, add(job)}. `show(result, job)` gives the elements of a result. */
export function jobList(kind, { show, title = t("job.list") }) {
  const cards = h("div", { class: "jobs" });
  const none = h("p", { class: "note" }, t("job.none"));
  const element = h("section", { class: "job-list", "aria-label": title }, h("h2", {}, title), none, cards);
  const add = (job, place = "prepend") => {
    none.hidden = true;
    cards[place](jobCard(job, { show, ongone: () => (none.hidden = cards.childElementCount > 0) }));
  };
  call(`v1/jobs?kind=${kind}`).then(
    ({ data }) => data.forEach((job) => add(job, "append")),
    (error) => (none.textContent = error.message),
  );
  return { element, add };
}

/** One job, watched until it ends. */
export function jobCard(job, { show, ongone = () => {} }) {
  const name = job.label || t("job.untitled", { when: new Date(job.created_s * 1000).toLocaleString() });
  const state = h("span", { class: "job-state" });
  const bar = h("progress", { max: 1, "aria-label": t("job.progress", { name }) });
  const says = h("p", { class: "note" });
  const result = h("div", { class: "job-result" });
  const end = iconButton("close", "", () => stop());
  const card = h("article", { class: "job" }, h("div", { class: "row" }, h("h3", { class: "grow" }, name), state, end));
  card.append(bar, says, result);
  const draw = (isLost = false) => {
    state.textContent = t(`job.${job.state}`);
    card.dataset.state = job.state;
    bar.hidden = !isLive(job);
    bar.value = job.progress;
    says.textContent = job.state === "failed" ? explained(job.error, { code: "job" }) : isLost ? t("job.lost") : isLive(job) ? progressOf(job) : "";
    says.classList.toggle("wrong", job.state === "failed");
    const label = t(isLive(job) ? "job.cancel" : "job.delete", { name });
    end.setAttribute("aria-label", label);
    end.title = label;
  };
  const shown = () => {
    if (job.state === "done" && !result.childElementCount) result.append(...[show(job.result, job)].flat(2).filter(Boolean));
  };
  async function stop() {
    try {
      const { deleted } = await remove(`v1/jobs/${job.id}`);
      if (!deleted) return;
      card.remove();
      ongone();
    } catch (error) {
      toast(error.message);
    }
  }
  async function watch() {
    try {
      if (!isLive(job)) job = await call(`v1/jobs/${job.id}`); // a list comes without results
      let isLost = false;
      while (isLive(job)) {
        draw(isLost);
        await new Promise((done) => setTimeout(done, EVERY_MS));
        if (!card.isConnected) return;
        isLost = false;
        job = await call(`v1/jobs/${job.id}`).catch((error) => {
          if (!(error instanceof Lost)) throw error;
          isLost = true;
          return job;
        });
        if (!isLive(job)) announce(`${name}: ${t(`job.${job.state}`)}`);
      }
      draw();
      shown();
    } catch (error) {
      says.textContent = error.message;
      says.classList.add("wrong");
    }
  }
  draw();
  watch();
  return card;
}

function progressOf({ progress, started_s }) {
  const percent = `${n(progress * 100)} %`;
  const seconds = started_s ? ((Date.now() / 1000 - started_s) * (1 - progress)) / progress : Infinity;
  if (progress < 0.02 || seconds < 0) return percent;
  const time = seconds < 90 ? `${n(seconds)} s` : `${n(seconds / 60)} min`;
  return `${percent}, ${t("job.left", { time })}`;
}

/** A button that saves a file of the server: {id, name, bytes}. */
export function fileButton({ id, name, bytes }) {
  return textButton(
    t("file.save", { name, size: size(bytes) }),
    async () => {
      try {
        saveBlob(name, await fetchFile(id));
      } catch (error) {
        toast(t("file.failed", { why: error.message }));
      }
    },
    { icon: "download" },
  );
}
