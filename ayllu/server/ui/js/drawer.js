/** The settings beside the conversation: presets, system prompt, every sampling parameter, JSON schema. */

import { emit, on } from "./bus.js";
import { schema, system } from "./boxes.js";
import { toolBox } from "./toolbox.js";
import { h, iconButton, textButton } from "./dom.js";
import { field } from "./fields.js";
import { library } from "./library.js";
import { GROUPS, PARAMETERS } from "./params.js";
import { mark, presetRow } from "./presets.js";
import { reset, save, settings } from "./settings.js";
import { t } from "./words.js";

const open = { is: false, side: "a" };

export function drawer() {
  const body = h("div", { class: "drawer-body" });
  const element = h(
    "aside",
    {
      class: "drawer",
      id: "drawer",
      "aria-label": t("settings"),
      onkeydown: (event) => {
        if (event.key === "Escape") {
          event.preventDefault();
          set(false);
        }
      },
    },
    h(
      "div",
      { class: "bar" },
      h("h2", { class: "grow" }, t("settings")),
      iconButton("close", t("settings.close"), () => set(false)),
    ),
    body,
  );
  const fill = () => body.replaceChildren(...contents(fill));
  const set = (is) => {
    const had = element.contains(document.activeElement);
    open.is = is;
    element.classList.toggle("open", is);
    element.inert = !is;
    emit("drawer.open", is);
    if (is) {
      fill();
      element.querySelector("button, select").focus();
    } else if (had) document.querySelector('[aria-controls="drawer"]')?.focus();
  };
  on("drawer", () => set(!open.is));
  on("settings", () => {
    if (open.is && !body.contains(document.activeElement)) fill();
  });
  on("thread", () => {
    if (open.is && body.dataset.kind !== library.current.kind) fill();
  });
  element.inert = !open.is;
  element.classList.toggle("open", open.is);
  if (open.is) fill();
  return element;
}

function contents(again) {
  if (!settings.compare) open.side = "a";
  const side = settings.sides[open.side];
  const { kind } = library.current;
  const change = () => {
    save();
    emit("settings");
  };
  return [
    settings.compare && sides(again),
    presetRow(side, again),
    system(side, kind, change),
    ...GROUPS.map((group) =>
      h(
        "fieldset",
        {},
        h("legend", {}, t(`group.${group}`)),
        PARAMETERS.filter((one) => one.group === group && !(one.chatOnly && kind !== "chat")).map((one) =>
          field(one, side.values, () => {
            change();
            mark(side);
          }),
        ),
      ),
    ),
    schema(side, change),
    kind === "chat" && toolBox(side, change),
    textButton(
      t("reset"),
      () => {
        reset(open.side);
        emit("settings");
        again();
      },
      { class: "button quiet", icon: "again" },
    ),
  ].filter(Boolean);
}

function sides(again) {
  return h(
    "div",
    { class: "segments", role: "radiogroup", "aria-label": t("side") },
    ["a", "b"].map((name) =>
      h(
        "label",
        {},
        h("input", {
          type: "radio",
          name: "side",
          checked: name === open.side,
          onchange: () => {
            open.side = name;
            again();
            document.querySelectorAll("input[name=side]")[name === "a" ? 0 : 1].focus();
          },
        }),
        h("span", {}, t(`side.${name}`)),
      ),
    ),
  );
}
