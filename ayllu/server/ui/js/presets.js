/** The row of presets: take one over, keep the present values as one, delete one. */

import { emit } from "./bus.js";
import { askText } from "./dialogs.js";
import { h, iconButton } from "./dom.js";
import { PRESETS } from "./params.js";
import { presetOf, presets, save, settings } from "./settings.js";
import { t } from "./words.js";

const nameOf = (name) => (name in PRESETS ? t(`preset.${name}`) : name);

export function presetRow(side, again) {
  const select = h(
    "select",
    {
      id: "preset",
      onchange: () => {
        if (!(select.value in presets())) return;
        side.values = { ...presets()[select.value] };
        save();
        emit("settings");
        again();
        document.getElementById("preset").focus();
      },
    },
    h("option", { value: "" }, t("preset.own")),
    Object.keys(presets()).map((name) => h("option", { value: name }, nameOf(name))),
  );
  select.value = presetOf(side.values) ?? "";
  const drop = () => {
    delete settings.presets[select.value];
    save();
    again();
  };
  return h(
    "div",
    { class: "field" },
    h("label", { for: "preset" }, t("preset")),
    h(
      "div",
      { class: "row" },
      select,
      iconButton("plus", t("preset.save"), () => keep(side, again)),
      select.value in settings.presets && iconButton("bin", t("preset.delete"), drop),
    ),
  );
}

async function keep(side, again) {
  const name = await askText({ title: t("preset.save"), label: t("preset.name"), submit: t("save") });
  if (!name || name in PRESETS || name === "__proto__") return;
  settings.presets[name] = { ...side.values };
  save();
  again();
}

/** After a change the values may be another preset's, or nobody's. */
export function mark(side) {
  const select = document.getElementById("preset");
  if (select) select.value = presetOf(side.values) ?? "";
}
