/** The bar above a conversation: its name, the model, the comparison, the settings. */

import { forgetKey, hasKey } from "./api.js";
import { emit, on } from "./bus.js";
import { h, iconButton, textButton } from "./dom.js";
import { library } from "./library.js";
import { connect, modelOf, server } from "./server.js";
import { save, settings } from "./settings.js";
import { titleOf } from "./tree.js";
import { t } from "./words.js";

export function header() {
  const title = h("h1", { class: "title" });
  const compare = iconButton("compare", t("compare"), () => {
    settings.compare = !settings.compare;
    save();
    emit("settings");
  });
  const tune = iconButton("tune", t("settings"), () => emit("drawer"), {
    "aria-expanded": "false",
    "aria-controls": "drawer",
  });
  const menu = iconButton("menu", t("menu"), () => emit("sidebar"), {
    class: "icon-button only-narrow",
    "aria-controls": "sidebar",
    "aria-expanded": "false",
  });
  const model = h("div", { class: "model" });
  const banner = h("div", { class: "banner", role: "status" });
  const name = () => {
    title.textContent = titleOf(library.current, t("untitled"));
    document.title = `${title.textContent} · Ayllu`;
  };
  on("list", name);
  on("settings", () => {
    compare.setAttribute("aria-pressed", String(settings.compare));
    model.replaceChildren(...pickers());
    tell(banner);
  });
  on("server", () => {
    model.replaceChildren(...pickers());
    tell(banner);
  });
  on("sidebar.open", (isOpen) => menu.setAttribute("aria-expanded", String(isOpen)));
  on("drawer.open", (isOpen) => tune.setAttribute("aria-expanded", String(isOpen)));
  return h("div", { class: "top" }, h("header", { class: "bar" }, menu, title, model, compare, tune), banner);
}

/** One picker, or one for each side of a comparison. */
function pickers() {
  return (settings.compare ? ["a", "b"] : ["a"]).map((name) => picker(name));
}

function picker(name) {
  const side = settings.sides[name];
  const label = settings.compare ? `${t("model")} ${t(`side.${name}`)}` : t("model");
  const select = h(
    "select",
    {
      "aria-label": label,
      title: label,
      disabled: !server.models.length,
      onchange: () => {
        side.model = select.value;
        save();
        emit("settings");
      },
    },
    server.models.map(({ id, parent }) => h("option", { value: id }, parent ? `${id} (${parent})` : id)),
  );
  if (!server.models.length) select.append(h("option", {}, t("server.loading")));
  select.value = modelOf(side) || select.value;
  return h(
    "span",
    { class: "picker" },
    settings.compare && h("span", { class: "tag", "aria-hidden": "true" }, t(`side.${name}`)),
    select,
  );
}

function tell(banner) {
  const again = textButton(t("retry"), connect, { class: "button quiet", icon: "again" });
  const forget =
    hasKey() &&
    server.state === "refused" &&
    textButton(
      t("key.forget"),
      () => {
        forgetKey();
        connect();
      },
      { class: "button quiet" },
    );
  const says = {
    lost: t("server.lost"),
    refused: t("server.refused", { why: server.error }),
    loading: t("server.loading"),
  }[server.state];
  banner.className = `banner ${server.state}`;
  if (says)
    banner.replaceChildren(
      h("span", {}, says),
      ...(server.state === "loading" ? [] : [again]),
      ...(forget ? [forget] : []),
    );
  else if (settings.compare) banner.replaceChildren(h("span", {}, t("compare.on")));
  else banner.replaceChildren();
}
