/** What an analysis found, as elements: tiles, bars over time, bars of topics and aspects, posts with their words coloured. */

import { h } from "../dom.js";
import { explained } from "../faults.js";
import { fileButton } from "../jobcard.js";
import { language, n, t } from "../words.js";

const VERDICTS = ["negative", "neutral", "positive"];
const SVG = "http://www.w3.org/2000/svg";
const percent = (share) => `${n(share * 100)} %`;

/** The whole result of a job. */
export function shown(result) {
  const { trends } = result;
  return h(
    "div",
    { class: "found" },
    tiles(result),
    result.rejected ? h("p", { class: "note" }, t("analyse.rejected", { n: n(result.rejected) })) : null,
    result.rejects.length ? h("ul", { class: "note" }, result.rejects.slice(0, 6).map(leftOut)) : null,
    listed("analyse.actions", result.actions.slice(0, 6).map(action)),
    trends.buckets ? section("analyse.time", overTime(trends)) : null,
    listed("analyse.changes", (trends.changes ?? []).slice(0, 6).map(change)),
    h(
      "div",
      { class: "found-pair" },
      bars("analyse.topic", result.topic),
      bars("analyse.aspect", result.aspect),
      bars("analyse.brand", result.brand),
    ),
    examples(result.examples),
    h("div", { class: "row wrap" }, result.files.map(fileButton)),
  );
}

const leftOut = ({ file, line, reason }) => h("li", {}, `${file}${line ? `:${line}` : ""}: ${explained(reason, { code: "unreadable" })}`);

/** A post with the words that moved its verdict. */
export function coloured({ text, why = [], sentiment }) {
  const line = h("p", { class: `said ${sentiment}` });
  const top = Math.max(...why.map(([, , effect]) => Math.abs(effect)), 1);
  let last = 0;
  const letters = [...text]; // the server counts characters, JavaScript halves of some
  for (const [start, end, effect] of why) {
    const mark = h("mark", { class: effect > 0 ? "positive" : "negative" }, letters.slice(start, end).join(""));
    mark.style.setProperty("--much", `${Math.round(18 + (42 * Math.abs(effect)) / top)}%`);
    line.append(letters.slice(last, start).join(""), mark);
    last = end;
  }
  line.append(letters.slice(last).join(""));
  return line;
}

/** A stacked bar as wide as its share of the largest. */
export function stack(row, most = row.n) {
  const bar = h("span", { class: "stack" });
  bar.style.inlineSize = `${(100 * row.n) / Math.max(most, 1)}%`;
  for (const verdict of VERDICTS) {
    const part = h("i", { class: verdict });
    part.style.inlineSize = `${(100 * row[verdict]) / Math.max(row.n, 1)}%`;
    bar.append(part);
  }
  return bar;
}

const section = (key, ...parts) => h("section", { "aria-label": t(key) }, h("h4", {}, t(key)), parts);
const listed = (key, items) => (items.length ? section(key, h("ul", {}, items)) : null);

function tiles({ posts, sentiment }) {
  const tile = (value, label, kind) => h("div", { class: `tile ${kind}` }, h("b", {}, value), h("span", {}, label));
  return h(
    "div",
    { class: "tiles" },
    tile(n(posts), t("analyse.posts"), ""),
    [...VERDICTS].reverse().map((verdict) => tile(percent(sentiment[verdict] / posts), t(`analyse.${verdict}`), verdict)),
  );
}

const action = (found) => h("li", {}, found[language()].replace("{about}", named(found.about)));

function change({ of, what, when, found, expected }) {
  const share = what !== "posts";
  const say = share ? percent : (value) => n(value);
  return h("li", {}, t(share ? "analyse.change.share" : "analyse.change.posts", { when, of: named(of), found: say(found), expected: say(expected) }));
}

/** An aspect, an emotion or a series in the reader's language, where it's one of ours. */
export function named(of) {
  if (of === "all") return t("analyse.all");
  const name = of.replace(/^(topic|group): /, "");
  const own = t(`analyse.is.${name}`);
  return own.startsWith("analyse.is.") ? name : own;
}

function overTime({ buckets, series }) {
  const { all } = series;
  const totals = buckets.map((_, i) => VERDICTS.reduce((sum, verdict) => sum + all[verdict][i], 0));
  const top = Math.max(...totals, 1);
  const wide = 100 / buckets.length;
  const svg = drawn("svg", { class: "bars-over-time", viewBox: "0 0 100 30", preserveAspectRatio: "none", role: "img", "aria-label": t("analyse.time") });
  buckets.forEach((name, i) => {
    const values = Object.fromEntries(VERDICTS.map((verdict) => [verdict, all[verdict][i]]));
    const group = drawn("g");
    const title = drawn("title");
    title.textContent = t("analyse.bucket", { name, ...values });
    group.append(title);
    let y = 30;
    for (const verdict of VERDICTS) {
      const height = (30 * values[verdict]) / top;
      y -= height;
      group.append(drawn("rect", { class: verdict, x: i * wide + wide * 0.1, y, width: wide * 0.8, height }));
    }
    svg.append(group);
  });
  return h("div", {}, svg, h("div", { class: "row between note" }, h("span", {}, buckets[0]), h("span", {}, buckets.at(-1))));
}

function drawn(tag, attributes = {}) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function bars(key, rows) {
  const found = Object.entries(rows).slice(0, 8);
  if (!found.length) return null;
  const most = Math.max(...found.map(([, row]) => row.n));
  return section(
    key,
    h(
      "div",
      { class: "found-rows" },
      found.map(([name, row]) => [h("span", { title: name }, named(name)), stack(row, most), h("b", {}, n(row.n))]),
    ),
  );
}

function examples(kinds) {
  const posts = ["negative", "positive"].flatMap((verdict) => Object.keys(kinds).filter((name) => name.startsWith(verdict)).flatMap((name) => kinds[name]));
  return posts.length ? section("analyse.examples", posts.slice(0, 6).map(coloured)) : null;
}
