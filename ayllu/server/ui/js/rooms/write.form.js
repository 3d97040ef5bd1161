/** The brief as a form. */

import { dropZone } from "../dropzone.js";
import { h, textButton } from "../dom.js";
import { on } from "../bus.js";
import { t } from "../words.js";
import { begin, clear, isBusy, state } from "./write.state.js";

const KINDS = ["article", "story", "poem", "product", "post", "dialogue"];
const LANGUAGES = { auto: "write.language.auto", en: "English", zh: "中文" };

export function form() {
  const go = h("button", { type: "submit", class: "button main" }, t("write.go"));
  const stop = textButton(t("write.stop"), () => state.ending?.abort(), { icon: "stop" });
  const anew = textButton(t("write.new"), clear, { class: "button quiet", icon: "plus" });
  const refresh = () => {
    for (const field of element?.querySelectorAll("[data-name]") ?? []) {
      const value = String(state.brief[field.dataset.name]); // of a draft that was opened
      if (field !== document.activeElement && field.value !== value) field.value = value;
    }
    go.hidden = isBusy();
    stop.hidden = !isBusy();
    anew.hidden = !state.text;
    go.disabled = !state.brief.topic.trim() && !state.brief.keywords.trim();
  };
  const changed = (name, value) => {
    state.brief[name] = value;
    refresh();
  };
  on("write", () => refresh());
  const element = h(
    "form",
    {
      class: "panel write-form",
      onsubmit: (event) => {
        event.preventDefault();
        begin();
        if (matchMedia("(width < 60rem)").matches) document.querySelector(".write-paper").scrollIntoView();
      },
    },
    text("topic", changed, { rows: 2, maxlength: 500 }),
    line("keywords", changed, { maxlength: 500 }),
    choice("kind", KINDS.map((kind) => [kind, t(`write.kind.${kind}`)]), changed),
    h(
      "div",
      { class: "columns" },
      choice("language", Object.entries(LANGUAGES).map(([tag, name]) => [tag, tag === "auto" ? t(name) : name]), changed),
      line("length", changed, { type: "number", min: 20, max: 20000, inputmode: "numeric" }),
    ),
    text("points", changed, { rows: 2 }),
    h(
      "details",
      {},
      h("summary", {}, t("write.more")),
      h(
        "div",
        { class: "more" },
        line("audience", changed, { maxlength: 200 }),
        line("tone", changed, { maxlength: 200 }),
        text("forbidden", changed, { rows: 2 }),
        text("outline", changed, { rows: 3 }),
        h("p", { class: "label" }, t("write.sources")),
        dropZone({ many: true, kept: state.sources, onchange: (files) => (state.sources = files) }),
      ),
    ),
    h("div", { class: "row wrap" }, go, stop, anew),
  );
  refresh();
  return element;
}

const NOTED = ["topic", "keywords", "length", "points", "forbidden", "outline"];

function labelled(name, control) {
  const note = NOTED.includes(name) && h("p", { class: "note", id: `write-${name}-note` }, t(`write.${name}.note`));
  return h("div", { class: "field" }, h("label", { for: `write-${name}` }, t(`write.${name}`)), control, note);
}

const common = (name) => ({
  id: `write-${name}`,
  "data-name": name,
  value: state.brief[name],
  "aria-describedby": NOTED.includes(name) ? `write-${name}-note` : null,
});

function text(name, changed, props) {
  const field = h("textarea", { ...common(name), ...props, oninput: () => changed(name, field.value) });
  return labelled(name, field);
}

function line(name, changed, props) {
  const field = h("input", { type: "text", ...common(name), ...props, oninput: () => changed(name, field.value) });
  return labelled(name, field);
}

function choice(name, options, changed) {
  const field = h(
    "select",
    { id: `write-${name}`, "data-name": name, onchange: () => changed(name, field.value) },
    options.map(([value, label]) => h("option", { value }, label)),
  );
  field.value = state.brief[name];
  return labelled(name, field);
}
