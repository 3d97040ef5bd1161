/** The list of conversations: search, choose, rename, delete, export, import; and language and colours. */

import { emit, on } from "./bus.js";
import { askText } from "./dialogs.js";
import { download, h, icon, iconButton, textButton, toast } from "./dom.js";
import { asJson, asMarkdown, fileName, fromFile } from "./exchange.js";
import { begin, changed, find, library, remove, show } from "./library.js";
import { looks } from "./looks.js";
import { openMenu } from "./menu.js";
import { titleOf } from "./tree.js";
import { t } from "./words.js";

const OPENERS = '[aria-controls="sidebar"]';

export function sidebar() {
  const search = h("input", {
    type: "search",
    placeholder: t("search"),
    "aria-label": t("search"),
    oninput: () => fill(),
  });
  const list = h("nav", { class: "list", "aria-label": t("list") });
  const fill = () => list.replaceChildren(...groups(find(search.value), search.value));
  const set = (is) => {
    const had = element.contains(document.activeElement);
    element.classList.toggle("open", is);
    emit("sidebar.open", is);
    if (!is && had) document.querySelector(OPENERS)?.focus();
  };
  const close = () => set(false);
  const element = h(
    "aside",
    {
      class: "sidebar",
      id: "sidebar",
      "aria-label": t("list"),
      onkeydown: (event) => event.key === "Escape" && close(),
    },
    h(
      "div",
      { class: "bar" },
      h("span", { class: "brand" }, h("img", { src: "ui/icon.svg", alt: "", width: 24, height: 24 }), "Ayllu"),
      iconButton("close", t("menu.close"), close, { class: "icon-button only-narrow" }),
    ),
    textButton(
      t("new"),
      () => {
        begin();
        close();
        emit("focus");
      },
      { class: "button new", icon: "plus" },
    ),
    h("div", { class: "search" }, icon("search"), search),
    list,
    foot(),
  );
  on("list", fill);
  on("sidebar", () => {
    set(!element.classList.contains("open"));
    element.querySelector("button").focus(); // not the search: phones would show their keyboard
  });
  on("click", (target) => {
    const isOurs = !target.isConnected || element.contains(target);
    if (element.classList.contains("open") && !isOurs && !target.closest(`${OPENERS}, .menu, dialog`)) close();
  });
  on("search", () => {
    set(true);
    search.focus();
    search.select();
  });
  on("thread", close);
  return element;
}

function groups(conversations, words) {
  if (!library.isKept) return [h("p", { class: "note" }, t("not.kept")), ...conversations.map(entry)];
  if (!conversations.length) return [h("p", { class: "note" }, t(words ? "search.none" : "list.empty"))];
  const midnight = new Date().setHours(0, 0, 0, 0);
  const day = ({ updated }) => (updated >= midnight ? "today" : updated >= midnight - 864e5 ? "yesterday" : "earlier");
  return ["today", "yesterday", "earlier"].flatMap((name) => {
    const found = conversations.filter((one) => day(one) === name);
    return found.length ? [h("h2", {}, t(name)), h("ul", {}, found.map(entry))] : [];
  });
}

function entry(conversation) {
  const title = titleOf(conversation, t("untitled"));
  const more = iconButton("more", t("more", { title }), () => openMenu(more, title, actions(conversation)), {
    "aria-haspopup": "menu",
    "aria-expanded": "false",
  });
  const isCurrent = conversation === library.current;
  return h(
    "li",
    { class: isCurrent ? "current" : null },
    h(
      "button",
      {
        type: "button",
        class: "entry",
        "aria-current": isCurrent ? "true" : null,
        title,
        onclick: () => show(conversation),
      },
      title,
    ),
    more,
  );
}

function actions(conversation) {
  const title = titleOf(conversation, t("untitled"));
  return [
    { label: t("rename"), icon: "edit", run: () => rename(conversation, title) },
    {
      label: t("export.md"),
      icon: "download",
      run: () => download(fileName(title, "md"), asMarkdown(conversation, title), "text/markdown"),
    },
    {
      label: t("export.json"),
      icon: "download",
      run: () => download(fileName(title, "json"), asJson([conversation]), "application/json"),
    },
    { label: t("delete"), icon: "bin", danger: true, run: () => drop(conversation, title) },
  ];
}

async function rename(conversation, title) {
  const name = await askText({ title: t("rename"), label: t("rename"), value: title, submit: t("save") });
  if (!name) return;
  conversation.title = name;
  changed(conversation, { now: true, touch: false });
}

function drop(conversation, title) {
  remove(conversation);
  toast(t("deleted", { title }), t("undo"), () => changed(conversation, { now: true, touch: false }), 10);
}

function foot() {
  const file = h("input", {
    type: "file",
    accept: ".json,application/json",
    class: "unseen",
    tabindex: -1,
    "aria-label": t("import"),
    onchange: () => bring(file),
  });
  return h(
    "div",
    { class: "foot" },
    file,
    iconButton("upload", t("import"), () => file.click()),
    iconButton("download", t("export.all"), () =>
      download(fileName("ayllu", "json"), asJson(library.all), "application/json"),
    ),
    looks(),
  );
}

async function bring(field) {
  const [file] = field.files;
  field.value = "";
  try {
    const found = await fromFile(file, new Set(library.all.map(({ id }) => id)));
    found.forEach((conversation) => changed(conversation, { now: true, touch: false }));
    if (found.length) show(found[0]);
    toast(t("imported", { n: found.length }));
  } catch (error) {
    toast(t("import.bad", { why: error.message }));
  }
}
