/** Questions to one's own documents: collections, what is in them, and a conversation with checked citations. */

import { call, remove } from "../api.js";
import { dropZone } from "../dropzone.js";
import { h, icon, iconButton, textButton, toast } from "../dom.js";
import { explained, noted } from "../faults.js";
import { jobCard } from "../jobcard.js";
import { about, roomPage, size } from "../roompage.js";
import { addWords, inWords, n, t } from "../words.js";
import { openDocument } from "./ask.reader.js";
import { talk } from "./ask.talk.js";
import { WORDS } from "./ask.words.js";

addWords(WORDS);

const KINDS = [".txt", ".md", ".html", ".htm", ".pdf", ".docx", ".csv", ".tsv", ".xlsx", ".epub"];
const MEDIA = { image: [".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"], audio: [".wav", ".flac", ".ogg", ".mp3"] };
let chosen = null; // the id of the collection

export const ask = { name: "ask", icon: "ask", draw };

function draw(rest) {
  chosen = rest[0] || chosen;
  const side = h("section", { class: "panel ask-side", "aria-label": t("ask.collections") });
  const middle = h("section", { class: "panel ask-talk", "aria-label": t("ask.talk") });
  const small = h("p", { class: "note warn", hidden: true });
  about().then(
    ({ is_small: isSmall, model, n_parameters: count }) => {
      small.hidden = !isSmall;
      small.textContent = t("ask.small", { model, n: inWords(count) });
    },
    () => {},
  );
  const renew = () => show(side, middle, renew).catch((error) => toast(error.message));
  renew();
  return [roomPage({ title: t("ask.title") }, small, h("div", { class: "ask" }, side, middle))];
}

async function show(side, middle, renew) {
  const { data } = await call("v1/collections");
  if (!data.some(({ id }) => id === chosen)) chosen = data[0]?.id ?? null;
  const one = chosen && (await call(`v1/collections/${chosen}`));
  const server = await about();
  side.parentElement?.classList.toggle("is-empty", !one);
  side.replaceChildren(...head(data, renew), ...(one ? contents(one, renew, server) : [h("p", { class: "note" }, t("ask.none"))]));
  if (middle.dataset.shows !== `${chosen} ${t("ask.title")}`) {
    middle.dataset.shows = `${chosen} ${t("ask.title")}`;
    middle.replaceChildren(...talk(chosen, server.takes.includes("audio")));
  }
}

function head(data, renew) {
  const choose = h(
    "select",
    {
      "aria-label": t("ask.collection"),
      onchange: () => {
        chosen = choose.value;
        renew();
      },
    },
    data.map(({ id, name }) => h("option", { value: id }, name)),
  );
  if (chosen) choose.value = chosen;
  const field = h("input", { type: "text", maxlength: 200, "aria-label": t("ask.name"), placeholder: t("ask.name") });
  const make = async (event) => {
    event.preventDefault();
    if (!field.value.trim()) return field.focus();
    try {
      chosen = (await call("v1/collections", { name: field.value.trim() })).id;
      renew();
    } catch (error) {
      toast(error.message);
    }
  };
  const end = async () => {
    const { name } = data.find(({ id }) => id === chosen);
    if (!confirm(t("ask.sure", { name }))) return;
    await remove(`v1/collections/${chosen}`).catch((error) => toast(error.message));
    renew();
  };
  return [
    data.length > 0 && h("div", { class: "row" }, choose, iconButton("bin", t("ask.delete"), end)),
    h(
      "form",
      { class: "row", onsubmit: make },
      field,
      h("button", { type: "submit", class: "button" }, icon("plus"), t("ask.new")),
    ),
  ].filter(Boolean);
}

/** Whether the model says what is on pictures and in recordings: {row, box, kinds}, kinds of files that it adds. */
function pictures({ takes, model, is_small: isSmall }) {
  const kinds = Object.keys(MEDIA).flatMap((kind) => (takes.includes(kind) ? MEDIA[kind] : []));
  const box = h("input", { type: "checkbox" });
  const note = isSmall && h("span", { class: "note warn" }, t("ask.pictures.small", { model }));
  return { kinds, box, row: h("label", { class: "row check", hidden: !kinds.length }, box, h("span", {}, t("ask.pictures"), isSmall && h("br"), note)) };
}

function contents(one, renew, server) {
  const jobs = h("div", { class: "jobs" });
  const add = (job) => jobs.prepend(jobCard(job, { show: (result) => told(result, renew) }));
  call("v1/jobs?kind=index").then(
    ({ data }) => data.filter(({ state }) => state === "queued" || state === "running").forEach(add),
    () => {},
  );
  let waiting = [];
  const seen = pictures(server);
  const read = textButton(t("ask.read"), async () => {
    if (zone.querySelector("li[role=status]:not(.wrong)")) return toast(t("ask.sending"));
    try {
      const label = waiting.map(({ name }) => name).join(", ").slice(0, 200);
      const files = waiting.map(({ id }) => id);
      const payload = { collection: one.id, files, pictures: seen.box.checked };
      const job = await call("v1/jobs", { kind: "index", label, payload });
      zone.replaceWith((zone = drop()));
      add(job);
    } catch (error) {
      toast(error.message);
    }
  });
  const drop = () => {
    waiting = [];
    read.hidden = true;
    const onchange = (files) => {
      waiting = files;
      read.hidden = !files.length;
      const isMedium = ({ name }) => seen.kinds.some((kind) => name.toLowerCase().endsWith(kind));
      if (files.some(isMedium)) seen.box.checked = true; // else they can't be read
    };
    return dropZone({ kinds: [...KINDS, ...seen.kinds], many: true, label: t("ask.drop"), onchange });
  };
  let zone = drop();
  return [zone, seen.row, read, jobs, documents(one, renew), leftOut(one.left_out)].filter(Boolean);
}

function told(result, renew) {
  renew();
  const counts = ["added", "updated", "unchanged"].filter((key) => result[key]);
  return h("p", { class: "note" }, counts.map((key) => t(`ask.${key}`, { n: n(result[key]) })).join(", "));
}

function documents(one, renew) {
  const forget = async ({ id, source }) => {
    if (!confirm(t("ask.sure.one", { name: source }))) return;
    await remove(`v1/collections/${one.id}/documents/${id}`).catch((error) => toast(error.message));
    renew();
  };
  const row = (file) =>
    h(
      "li",
      {},
      h(
        "button",
        { type: "button", class: "entry grow", onclick: () => openDocument(one.id, { document: file.id, source: file.source }) },
        h("span", { class: "name" }, file.source),
        h(
          "span",
          { class: "note" },
          [size(file.size), file.pages && t("ask.pages", { n: n(file.pages) }), file.alike && t("ask.alike"), ...file.notes.map(noted)]
            .filter(Boolean)
            .join(" · "),
        ),
      ),
      iconButton("close", t("ask.forget", { name: file.source }), () => forget(file)),
    );
  return h(
    "div",
    {},
    h("h2", {}, t("ask.documents", { n: n(one.documents) })),
    h("ul", { class: "documents" }, one.files.map(row)),
  );
}

function leftOut(files) {
  const rows = Object.entries(files);
  if (!rows.length) return null;
  return h(
    "details",
    { class: "left-out" },
    h("summary", {}, t("ask.left_out", { n: n(rows.length) })),
    h("ul", { class: "documents" }, rows.map(([name, why]) => h("li", {}, h("span", { class: "name" }, name), h("span", { class: "note" }, explained(why, { code: "unreadable" }))))),
  );
}
