/** The Write room: a brief, the text as it comes, its checks and versions; drafts; many texts as a job. */

import { call, remove } from "../api.js";
import { on } from "../bus.js";
import { dropZone } from "../dropzone.js";
import { h, iconButton, textButton } from "../dom.js";
import { explained } from "../faults.js";
import { fileButton, jobList } from "../jobcard.js";
import { about, roomPage } from "../roompage.js";
import { addWords, t } from "../words.js";
import { checks, versions } from "./write.checks.js";
import { form } from "./write.form.js";
import { paper } from "./write.paper.js";
import { show, state } from "./write.state.js";
import { WORDS } from "./write.words.js";

addWords(WORDS);

export const write = {
  name: "write",
  icon: "pen",
  draw([draft]) {
    if (draft && draft !== state.draft) show(draft);
    const left = h("div", { class: "write-left" }, form(), checks(), versions(), drafts());
    const room = h("div", { class: "write-room" }, left, paper());
    return roomPage({ title: t("room.write"), size: t("write.size"), note: t("write.measured") }, room, batch());
  },
};

/** What was written before. */
function drafts() {
  const list = h("ul", { class: "drafts" });
  const element = h("section", { class: "panel", "aria-label": t("write.drafts") }, h("h2", {}, t("write.drafts")), list);
  let shown = null;
  const fill = async () => {
    if (!(await about()).keeps) return (element.hidden = true);
    const { data } = await call("v1/write/drafts?limit=20");
    list.replaceChildren(...(data.length ? data.map(row) : [h("li", { class: "note" }, t("write.drafts.none"))]));
  };
  const row = ({ id, title }) =>
    h(
      "li",
      {},
      h("a", { href: `#/write/${id}`, "aria-current": id === state.draft ? "true" : null }, title),
      iconButton("bin", t("write.draft.delete", { title }), async () => {
        await remove(`v1/write/drafts/${id}`);
        fill();
      }),
    );
  const refresh = () => {
    if (state.draft === shown) return;
    shown = state.draft;
    fill().catch(() => {});
  };
  on("write", refresh);
  fill().catch(() => {});
  shown = state.draft;
  return element;
}

/** A table of briefs as a job. */
function batch() {
  const jobs = jobList("write", { show: result });
  let file = null;
  const go = textButton(
    t("write.batch.go"),
    async () => {
      jobs.add(await call("v1/jobs", { kind: "write", payload: { file: file.id }, label: file.name }));
    },
    { class: "button main", disabled: true },
  );
  const chosen = (files) => {
    [file] = files;
    go.disabled = !file;
  };
  const section = h(
    "section",
    { class: "panel", "aria-label": t("write.batch") },
    h("h2", {}, t("write.batch")),
    h("p", { class: "note" }, t("write.batch.note")),
    dropZone({ kinds: [".csv", ".tsv", ".jsonl"], onchange: chosen }),
    h("div", { class: "row" }, go),
    jobs.element,
  );
  about().then(
    ({ keeps }) => (section.hidden = !keeps),
    () => {},
  );
  return section;
}

function result({ texts, met, left_out: left, files }) {
  return [
    h("p", {}, t("write.batch.result", { n: texts, met })),
    files.map(fileButton),
    left.length > 0 && h("div", { class: "note" }, t("write.batch.left"), h("ul", {}, left.slice(0, 50).map((why) => h("li", {}, explained(why))))),
  ];
}
