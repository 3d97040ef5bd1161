/** Customer service, for the people of the business: what customers asked, who waits, what the pages don't say yet. */

import { call, heldKey } from "../api.js";
import { copy, h, textButton, toast } from "../dom.js";
import { roomPage } from "../roompage.js";
import { addWords, language, n, t } from "../words.js";
import "../../widget.js";
import { drawTalk, stateOf } from "./support.talk.js";
import { WORDS } from "./support.words.js";

addWords(WORDS);

const EVERY_MS = 4000;
const DAYS = 30;
let chosen = null; // the number of the conversation that is read

export const support = { name: "support", icon: "service", draw };

function draw(rest) {
  if (/^\d+$/.test(rest[0] ?? "")) chosen = Number(rest[0]);
  const parts = {
    sample: h("p", { class: "note", hidden: true }),
    figures: h("section", { class: "figures", "aria-label": t("support.figures", { n: DAYS }) }),
    list: h("div", { class: "talks" }),
    talk: h("section", { class: "panel talk", "aria-live": "polite" }),
    tickets: h("div", { class: "rows" }),
    unanswered: h("div", { class: "rows" }),
  };
  const room = roomPage(
    { title: t("support.title") },
    parts.sample,
    parts.figures,
    h(
      "div",
      { class: "desk" },
      h("section", { class: "panel" }, h("h2", {}, t("support.conversations")), parts.list, tryButton()),
      parts.talk,
    ),
    h("section", { class: "panel" }, h("h2", {}, t("support.tickets")), parts.tickets),
    h(
      "section",
      { class: "panel" },
      h("h2", {}, t("support.unanswered")),
      h("p", { class: "note" }, t("support.unanswered.note")),
      parts.unanswered,
    ),
    widgetPanel(),
  );
  const renew = () => show(parts, renew).catch((error) => toast(error.message));
  renew();
  const timer = setInterval(() => {
    if (!room.isConnected) return clearInterval(timer);
    if (!document.hidden) show(parts, renew).catch(() => {});
  }, EVERY_MS);
  return [room];
}

async function show(parts, renew) {
  const [overview, { data }] = await Promise.all([
    call(`v1/support/overview?days=${DAYS}&language=${language()}`),
    call("v1/support/conversations"),
  ]);
  parts.sample.hidden = !overview.is_sample;
  parts.sample.textContent = t("support.sample", { shop: overview.shop });
  changed(parts.figures, [overview.figures, data], () => tiles(overview.figures, data));
  const choose = (number) => {
    chosen = number;
    renew();
  };
  if (!data.some(({ number }) => number === chosen)) chosen = data[0]?.number ?? null;
  const { tickets, unanswered } = overview;
  changed(parts.list, [data, chosen], () => data.map((row) => entry(row, choose)), t("support.none"));
  changed(parts.tickets, tickets, () => tickets.map((it) => ticketRow(it, choose, renew)), t("support.tickets.none"));
  changed(parts.unanswered, unanswered, () => unanswered.map((it) => question(it, choose)), t("support.unanswered.none"));
  await drawTalk(parts.talk, chosen, renew);
}

const drawn = new WeakMap(); // element -> what it shows

/** New children where what they tell has changed, so that a reader's focus stays where it is otherwise. */
function changed(element, told, make, none) {
  const now = JSON.stringify(told);
  if (drawn.get(element) === now) return;
  drawn.set(element, now);
  const children = make();
  element.replaceChildren(...(children.length ? children : [h("p", { class: "note" }, none)]));
}

function tiles(figures, rows) {
  const { deflection, deflection_interval: interval, satisfaction } = figures;
  const none = "–";
  const percent = (share) => n(100 * share);
  return [
    tile(n(figures.conversations), t("support.f.conversations")),
    tile(n(rows.filter(({ state }) => state === "waiting").length), t("support.f.waiting")),
    tile(
      deflection === null ? none : `${percent(deflection)} %`,
      t("support.f.deflection"),
      interval && t("support.f.interval", { low: percent(interval[0]), high: percent(interval[1]) }),
    ),
    tile(figures.answer_ms_median === null ? none : `${n(figures.answer_ms_median)} ms`, t("support.f.answer")),
    tile(figures.person_s_median === null ? none : seconds(figures.person_s_median), t("support.f.person")),
    tile(
      satisfaction === null ? none : n(satisfaction, 1),
      t("support.f.satisfaction"),
      t("support.f.marks", { n: figures.satisfaction_n, up: figures.thumbs_up, down: figures.thumbs_down }),
    ),
    tile(n(figures.tokens), t("support.f.cost"), `${n(figures.cost, 2)} ${figures.currency}, ${seconds(figures.assistant_s)}`),
    tile(n(figures.saved_minutes), t("support.f.saved")),
  ];
}

const tile = (value, label, note) =>
  h("div", { class: "fact" }, h("strong", {}, value), h("span", {}, label), note && h("span", { class: "note" }, note));

const seconds = (s) => (s < 90 ? `${n(s, s < 10 ? 1 : 0)} s` : s < 5400 ? `${n(s / 60)} min` : `${n(s / 3600, 1)} h`);

function entry(row, choose) {
  const name = row.customer ? t("support.customer", { name: row.customer }) : t("support.number", { n: row.number });
  const when = new Date(row.updated_s * 1000).toLocaleString(language(), { dateStyle: "short", timeStyle: "short" });
  return h(
    "button",
    { type: "button", class: "entry", "aria-current": row.number === chosen ? "true" : null, onclick: () => choose(row.number) },
    h("span", { class: "row between" }, h("span", {}, name), h("span", { class: "note" }, when)),
    h("span", { class: "state", "data-state": row.state }, stateOf(row)),
  );
}

function ticketRow({ number, conversation, summary }, choose, renew) {
  const finish = async () => {
    await call(`v1/support/tickets/${number}/done`, {}).catch((error) => toast(error.message));
    renew();
  };
  return h(
    "article",
    { class: "ticket" },
    h("pre", {}, summary),
    h(
      "div",
      { class: "row wrap" },
      textButton(t("support.read", { n: conversation }), () => choose(conversation), { class: "button small" }),
      textButton(t("support.done"), finish, { class: "button small", icon: "check" }),
    ),
  );
}

const question = (row, choose) =>
  h("button", { type: "button", class: "entry asked", onclick: () => choose(row.conversation) }, row.question);

function tryButton() {
  return textButton(t("support.try"), () => globalThis.aylluSupport.mount({ key: heldKey(), language: language(), open: true, bottom: "5rem" }), {
    icon: "chat",
  });
}

function widgetPanel() {
  const source = new URL("ui/widget.js", location.href.split("#")[0]).href;
  const tag = `<script src="${source}" data-key="YOUR-WIDGET-KEY" data-language="${language()}" defer></script>`;
  const copied = () => copy(tag).then(() => toast(t("support.copied")));
  return h(
    "section",
    { class: "panel" },
    h("h2", {}, t("support.widget")),
    h("p", { class: "note" }, t("support.widget.note")),
    h("pre", { class: "code" }, tag),
    h("div", {}, textButton(t("support.copy"), copied, { icon: "copy" })),
  );
}
