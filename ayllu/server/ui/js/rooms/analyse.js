/** The Analyse room: a post that is read as it is typed, a file of posts as a job, and what was found. */

import { call } from "../api.js";
import { dropZone } from "../dropzone.js";
import { h, textButton, toast } from "../dom.js";
import { jobList } from "../jobcard.js";
import { roomPage } from "../roompage.js";
import { addWords, n, t } from "../words.js";
import { coloured, named, shown, stack } from "./analyse.result.js";
import { WORDS } from "./analyse.words.js";

addWords(WORDS);

const PAUSE_MS = 350; // after the last key
let text = null; // what stands in the box, also when the room is left

export const analyse = {
  name: "analyse",
  icon: "chart",
  draw: () => roomPage({ title: t("room.analyse") }, tried(), many()),
};

function tried() {
  const verdict = h("div", { class: "verdict-of", role: "status" });
  const measured = h("p", { class: "note" });
  const field = h("textarea", { id: "post", rows: 3, maxlength: 5000, value: text ?? t("analyse.first") });
  let waits = 0;
  let asked = 0;
  const read = async () => {
    const mine = ++asked;
    if (!field.value.trim()) return verdict.replaceChildren();
    try {
      const answer = await call("v1/analyse", { posts: [field.value.slice(0, 5000)] });
      if (mine !== asked) return;
      verdict.replaceChildren(...said(answer.posts[0]));
      tell(measured, Object.values(answer.measured));
    } catch (error) {
      if (mine === asked) verdict.replaceChildren(h("p", { class: "wrong" }, t("analyse.wrong", { why: error.message })));
    }
  };
  field.addEventListener("input", () => {
    text = field.value;
    clearTimeout(waits);
    waits = setTimeout(read, PAUSE_MS);
  });
  read();
  return h(
    "section",
    { class: "panel analyse-try", "aria-label": t("analyse.try") },
    h("h2", {}, t("analyse.try")),
    h("div", { class: "field" }, h("label", { for: "post" }, t("analyse.post")), field, h("p", { class: "note" }, t("analyse.try.note"))),
    verdict,
    measured,
  );
}

function said(post) {
  const aspects = Object.entries(post.aspects).map(([name, p]) => h("li", { class: p < 0.5 ? "negative" : "positive" }, named(name)));
  const feelings = Object.keys(post.emotions).map((name) => h("li", {}, named(name)));
  const bar = stack({ n: 1, negative: 1 - post.positive, neutral: 0, positive: post.positive });
  return [
    coloured(post),
    h("div", { class: "row wrap" }, h("b", { class: `verdict ${post.sentiment}` }, t(`analyse.${post.sentiment}`)), h("span", { class: "note" }, t("analyse.sure", { percent: `${n(post.positive * 100)} %` }))),
    bar,
    aspects.length || feelings.length ? h("ul", { class: "chips" }, aspects, feelings) : null,
  ].filter(Boolean);
}

function tell(element, rows) {
  if (!rows.length) return;
  const right = rows.map(({ accuracy }) => accuracy * 100);
  element.textContent = t("analyse.measured", { low: n(Math.min(...right)), high: n(Math.max(...right)), n: n(rows.length) });
}

function many() {
  const jobs = jobList("analyse", { show: shown });
  let file = null;
  const brands = h("input", { type: "text", id: "brands", maxlength: 400 });
  const topics = h("input", { type: "text", id: "topics", maxlength: 400 });
  const labels = h("input", { type: "text", id: "labels", maxlength: 400 });
  const submit = async (id, label) => {
    const named = Object.fromEntries(parts(topics.value).map((name) => [name, []]));
    const own = parts(labels.value);
    const payload = { file: id, brands: parts(brands.value), topics: named, labels: own.length ? { label: own } : {} };
    try {
      jobs.add(await call("v1/jobs", { kind: "analyse", label, payload }));
    } catch (error) {
      toast(error.message);
    }
  };
  const go = textButton(t("analyse.go"), () => submit(file.id, file.name), { class: "button main", disabled: true });
  const chosen = (files) => {
    [file] = files;
    go.disabled = !file;
  };
  const panel = h(
    "section",
    { class: "panel", "aria-label": t("analyse.many") },
    h("h2", {}, t("analyse.many")),
    h("p", { class: "note" }, t("analyse.many.note")),
    dropZone({ kinds: [".csv", ".tsv", ".jsonl", ".parquet", ".txt"], onchange: chosen }),
    h(
      "div",
      { class: "analyse-wishes" },
      h("div", { class: "field" }, h("label", { for: "brands" }, t("analyse.brands")), brands),
      h("div", { class: "field" }, h("label", { for: "topics" }, t("analyse.topics")), topics, h("p", { class: "note" }, t("analyse.topics.note"))),
      h("div", { class: "field" }, h("label", { for: "labels" }, t("analyse.labels")), labels, h("p", { class: "note" }, t("analyse.labels.note"))),
    ),
    h("div", { class: "row wrap" }, go, textButton(t("analyse.sample"), () => submit("sample", t("analyse.sample.name")))),
  );
  return [panel, jobs.element];
}

const parts = (list) =>
  list
    .split(/[,，、;；]/)
    .map((part) => part.trim())
    .filter(Boolean)
    .slice(0, 30);
