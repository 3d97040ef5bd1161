/** Elements without markup: every text goes in as a text node, so nothing that a model wrote can become HTML. */

import { PATHS } from "./icons.js";

const PROPERTIES = new Set(["value", "checked", "disabled", "open", "indeterminate"]);

/** An element: `onclick` and its like are listeners, the rest are attributes; null and false are left out. */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || (value === false && !PROPERTIES.has(name))) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (PROPERTIES.has(name)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** A line drawing of 24 units; what it means is said by the label of its button. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  for (const [key, value] of Object.entries({ viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true" })) {
    svg.setAttribute(key, value);
  }
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

/** A button of an icon alone. */
export function iconButton(name, label, onclick, props = {}) {
  return h(
    "button",
    { type: "button", class: "icon-button", "aria-label": label, title: label, onclick, ...props },
    icon(name),
  );
}

/** A button with words, and an icon before them where one is named. */
export function textButton(label, onclick, { icon: drawing, ...props } = {}) {
  return h("button", { type: "button", class: "button", onclick, ...props }, drawing && icon(drawing), label);
}

/** Tell people who listen instead of look. */
export function announce(text) {
  document.getElementById("live").textContent = text;
}

/** A short note at the edge, with one thing that can be done about it. */
export function toast(text, action, onaction, seconds = 6) {
  const note = h("div", { class: "toast" }, h("span", {}, text));
  const close = () => note.remove();
  if (action)
    note.append(
      textButton(
        action,
        () => {
          close();
          onaction();
        },
        { class: "button quiet" },
      ),
    );
  document.getElementById("toasts").append(note);
  setTimeout(close, seconds * 1000);
}

/** Put a text into the clipboard; on plain http from another machine there is none to be had, and a field helps. */
export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = h("textarea", { class: "unseen", value: text });
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}

/** Give a text to the person as a file. */
export const download = (name, text, type) => saveBlob(name, new Blob([text], { type }));

/** The same for bytes. */
export function saveBlob(name, blob) {
  const url = URL.createObjectURL(blob);
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
