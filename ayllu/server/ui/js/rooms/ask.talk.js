/** The conversation with a collection: each answer with its numbered sources, which open the document at the place. */

import { ApiError, open } from "../api.js";
import { announce, h, iconButton, toast } from "../dom.js";
import { soundOf } from "../media.js";
import { recorder } from "../record.js";
import { events } from "../stream.js";
import { n, t } from "../words.js";
import { openDocument } from "./ask.reader.js";

const said = new Map(); // collection -> [{question, answer, ...}]: lives as long as the page
const how = { fuse: "scores", rerank: false };

/** The elements of the conversation with `collection` (null: there is none yet); `hears`: questions may be spoken. */
export function talk(collection, hears) {
  if (!collection) return [h("p", { class: "note" }, t("ask.begin"))];
  if (!said.has(collection)) said.set(collection, []);
  const turns = said.get(collection);
  const list = h("div", { class: "asked-list" });
  const none = h("p", { class: "note" }, t("ask.empty"));
  none.hidden = turns.length > 0;
  list.append(none, ...turns.flatMap((turn) => drawn(collection, turn)));
  const field = h("textarea", { rows: 2, maxlength: 4000, "aria-label": t("ask.question"), placeholder: t("ask.question") });
  const go = iconButton("send", t("send"), () => submit(), { class: "icon-button main" });
  let stopping = null;
  const end = iconButton("stop", t("stop"), () => stopping?.abort(), { class: "icon-button main", hidden: true });
  const busy = (on) => {
    go.hidden = on;
    end.hidden = !on;
  };
  const submit = () => {
    const question = field.value.trim();
    if (!question || stopping) return field.focus();
    field.value = "";
    put(question, { question });
  };
  const speak = recorder(async (blob) => {
    try {
      const { data } = await soundOf(blob, t("media.recording"), { cuts: true });
      if (!stopping) put(t("media.recording"), { audio: { data } });
    } catch (error) {
      toast(error.message);
    }
  });
  speak.hidden = !hears || !navigator.mediaDevices;
  async function put(question, asked) {
    none.hidden = true;
    const turn = { question, answer: "", citations: [], passages: [], state: "waits" };
    turns.push(turn);
    let shown = drawn(collection, turn);
    list.append(...shown);
    const redraw = () => {
      const fresh = drawn(collection, turn);
      shown.forEach((element, i) => element.replaceWith(fresh[i]));
      shown = fresh;
      shown[0].scrollIntoView({ block: "nearest" });
    };
    stopping = new AbortController();
    busy(true);
    try {
      const body = { collection, ...asked, ...how, history: historyOf(turns.slice(0, -1)), stream: true };
      const response = await open("v1/ask", body, stopping.signal);
      for await (const event of events(response.body)) {
        if (event.type === "text") turn.answer += event.text;
        else if (event.type === "citation") turn.citations.push(event.citation);
        else if (event.type === "done")
          Object.assign(turn, event, { question: asked.question ?? event.question, searched: event.question, state: "done" });
        else if (event.error) throw new ApiError(0, event.error);
        redraw();
      }
      announce(turn.answer);
    } catch (error) {
      turn.state = stopping.signal.aborted ? "stopped" : "failed";
      turn.why = error.message;
      redraw();
    } finally {
      stopping = null;
      busy(false);
      field.focus();
    }
  }
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submit();
  });
  const form = h("form", { class: "ask-form", onsubmit: (event) => event.preventDefault() }, field, speak, go, end);
  return [list, form, searching()];
}

/** How passages are found: what the command has as --fuse and --rerank. */
function searching() {
  const ways = ["scores", "rrf"].map((way) => h("option", { value: way }, t(`ask.fuse.${way}`)));
  const fuse = h("select", { "aria-label": t("ask.fuse"), onchange: () => (how.fuse = fuse.value) }, ways);
  fuse.value = how.fuse;
  const box = h("input", { type: "checkbox", checked: how.rerank, onchange: () => (how.rerank = box.checked) });
  const rerank = h("label", { class: "row check" }, box, h("span", {}, t("ask.rerank"), h("br"), h("span", { class: "note" }, t("ask.rerank.note"))));
  return h("details", { class: "more" }, h("summary", {}, t("ask.how")), fuse, rerank);
}

const historyOf = (turns) =>
  turns.flatMap(({ question, answer }) => [
    { role: "user", content: question },
    { role: "assistant", content: answer.slice(0, 20_000) },
  ]).slice(-20);

function drawn(collection, turn) {
  return [h("p", { class: "question" }, turn.question), answer(collection, turn)];
}

function answer(collection, turn) {
  const cited = new Map(turn.citations.map((citation) => [citation.number, citation]));
  const isDone = turn.state === "done";
  const nothing = isDone && !turn.citations.length;
  return h(
    "article",
    { class: "found", "data-state": nothing ? "nothing" : turn.state },
    h("p", { class: "text" }, nothing ? why(turn) : marked(collection, turn.answer, cited)),
    turn.state === "waits" && !turn.answer && h("p", { class: "note" }, t("ask.waits")),
    turn.state === "failed" && h("p", { class: "note wrong" }, turn.why),
    turn.state === "stopped" && h("p", { class: "note" }, t("ask.stopped")),
    turn.citations.length > 0 && h("ol", { class: "sources" }, turn.citations.map((one) => source(collection, one))),
    nothing && turn.passages.length > 0 && h("p", { class: "note" }, t("ask.near")),
    nothing && h("ul", { class: "sources" }, turn.passages.slice(0, 3).map((one) => source(collection, { ...one, quote: one.text.replace(/^#{1,6} +/gm, "") }))),
    isDone && h("p", { class: "note" }, facts(turn, nothing)),
  );
}

/** What the answer says of finding nothing: that, or that a term is used and not defined. */
const why = ({ answer: text }) => text.split("\n\n").at(-1).split("\n")[0] || t("ask.nothing");

function facts({ way, confidence, searched, question, unsupported }, nothing) {
  return [
    !nothing && t(`ask.way.${way}`),
    t("ask.confidence", { n: n(100 * confidence) }),
    searched !== question && t("ask.searched", { question: searched }),
    unsupported?.length > 0 && t("ask.unsupported", { n: n(unsupported.length) }),
  ]
    .filter(Boolean)
    .join(" · ");
}

/** The text with each [1] as a button. */
function marked(collection, text, cited) {
  return text.split(/(\[\d+\])/).map((part) => {
    const citation = cited.get(Number(part.slice(1, -1)));
    if (!/^\[\d+\]$/.test(part) || !citation) return part;
    const label = t("ask.open", { source: citation.source });
    const click = () => openDocument(collection, citation);
    return h("button", { type: "button", class: "cite", "aria-label": `${part} ${label}`, title: label, onclick: click }, citation.number);
  });
}

function source(collection, citation) {
  const page = citation.page ? `, ${t("ask.page", { n: n(citation.page) })}` : "";
  return h(
    "li",
    { value: citation.number },
    h(
      "button",
      { type: "button", class: "entry", onclick: () => openDocument(collection, citation) },
      h("span", { class: "name" }, citation.source, page),
      h("span", { class: "quote" }, citation.quote.slice(0, 240)),
    ),
  );
}
