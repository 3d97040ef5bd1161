/** The text: as it comes, to read or to edit, with what can be done with it. */

import { on } from "../bus.js";
import { askText } from "../dialogs.js";
import { h, saveBlob, textButton, toast } from "../dom.js";
import { fileName } from "../exchange.js";
import { renderInto } from "../render.js";
import { t } from "../words.js";
import { check, exported, isBusy, keep, revise, state, titleOf } from "./write.state.js";

const ACTIONS = ["rewrite", "shorten", "expand", "continue", "tone", "titles"];
const FORMS = { md: "Markdown", html: "HTML", docx: "DOCX" };

export function paper() {
  const plan = h("div", { class: "plan", role: "status" });
  const page = h("article", { class: "paper answer", "aria-label": t("write.text") });
  const field = h("textarea", {
    class: "paper",
    "aria-label": t("write.text"),
    oninput: () => {
      state.text = field.value;
      grow();
    },
  });
  const titles = h("div", { class: "titles" });
  const tools = toolbar(field);
  const error = h("p", { class: "note wrong", role: "alert" });
  const grow = () => {
    field.style.height = "auto";
    field.style.height = `${field.scrollHeight + 4}px`;
  };
  let frame = 0;
  const paint = () => {
    frame = 0;
    const edits = state.mode === "edit" && !isBusy();
    page.hidden = edits;
    field.hidden = !edits;
    tools.refresh(edits);
    plan.replaceChildren(...planOf());
    error.textContent = state.error;
    error.hidden = !state.error;
    titles.replaceChildren(...titlesOf());
    if (edits) {
      if (field.value !== state.text) field.value = state.text;
      grow();
    } else if (state.text) {
      renderInto(page, state.text);
    } else {
      page.keys = [];
      page.replaceChildren(h("p", { class: "note" }, t("write.empty")));
    }
    page.classList.toggle("writing", isBusy());
  };
  on("write", () => (frame ||= requestAnimationFrame(paint)));
  paint();
  return h("section", { class: "write-paper" }, plan, tools.element, error, titles, page, field);
}

/** What is selected in the text on show, for checks that point at a place. */
export function select(start, end) {
  state.mode = "edit";
  const field = document.querySelector("textarea.paper");
  field.hidden = false;
  field.value = state.text;
  field.focus();
  field.setSelectionRange(start, end);
}

function planOf() {
  if (state.outline.length < 2) return [];
  const heads = state.outline.map((heading, i) =>
    h("li", { class: i === state.section ? "now" : null, "aria-current": i === state.section ? "step" : null }, heading),
  );
  return [h("h2", {}, t("write.planned")), h("ol", {}, heads)];
}

function titlesOf() {
  if (!state.titles.length) return [];
  const use = (title) => {
    const rest = state.text.replace(/^# .*\n*/, "");
    state.text = `# ${title}\n\n${rest}`;
    state.titles = [];
    keep(t("write.do.titles"));
  };
  return [
    h("h2", {}, t("write.titles")),
    h("ul", {}, state.titles.map((title) => h("li", {}, textButton(title, () => use(title), { "aria-label": t("write.title.use", { title }) })))),
  ];
}

function toolbar(field) {
  const modes = ["read", "edit"].map((mode) =>
    h(
      "label",
      {},
      h("input", { type: "radio", name: "write-mode", checked: state.mode === mode, onchange: () => choose(mode) }),
      h("span", {}, t(`write.${mode}`)),
    ),
  );
  const choose = (mode) => {
    state.mode = mode;
    check();
  };
  const act = async (action) => {
    const [from, to] = state.mode === "edit" ? [field.selectionStart, field.selectionEnd] : [0, 0];
    const tone = action === "tone" ? await askText({ title: t("write.do.tone"), label: t("write.tone.ask"), submit: t("write.do.tone") }) : "";
    if (tone !== null) revise(action, from, to, tone);
  };
  const actions = ACTIONS.map((action) => textButton(t(`write.do.${action}`), () => act(action), { class: "button small" }));
  const kept = textButton(t("write.save"), async () => {
    await keep();
    if (!state.error && state.draft) toast(t("write.saved", { n: state.versions.length }));
  }, { class: "button small" });
  const saves = Object.entries(FORMS).map(([form, name]) =>
    textButton(
      name,
      async () => {
        try {
          saveBlob(fileName(titleOf(), form), await exported(form));
        } catch (error) {
          toast(t("file.failed", { why: error.message }));
        }
      },
      { class: "button small", icon: "download", "aria-label": t("write.export", { form: name }) },
    ),
  );
  const part = h("span", { class: "note" }, t("write.part"));
  const element = h(
    "div",
    { class: "write-tools" },
    h("div", { class: "row wrap" }, h("div", { class: "segments", role: "radiogroup", "aria-label": t("write.text") }, modes), kept, saves),
    h("div", { class: "row wrap" }, actions, part),
  );
  const refresh = (edits) => {
    element.hidden = !state.text;
    part.hidden = !edits;
    modes.forEach((label, i) => (label.firstChild.checked = (i === 1) === (state.mode === "edit")));
    element.querySelectorAll("button, input").forEach((one) => (one.disabled = isBusy()));
    kept.hidden = !edits || !state.draft;
  };
  return { element, refresh };
}
