/** A small menu below a button: arrow keys move, Enter chooses, Escape and a click elsewhere close it. */

import { h, icon } from "./dom.js";

let close = () => {};

/** Open a menu of [{label, icon, run, danger}] at `button`. */
export function openMenu(button, label, entries) {
  close();
  const items = entries.map((entry) =>
    h(
      "button",
      {
        type: "button",
        role: "menuitem",
        class: entry.danger ? "danger" : null,
        onclick: () => {
          close(true);
          entry.run();
        },
      },
      icon(entry.icon),
      entry.label,
    ),
  );
  const menu = h(
    "div",
    { class: "menu", role: "menu", "aria-label": label, onkeydown: (event) => move(event, items) },
    items,
  );
  document.body.append(menu);
  place(menu, button.getBoundingClientRect());
  button.setAttribute("aria-expanded", "true");
  const outside = (event) => {
    if (!menu.contains(event.target)) close();
  };
  setTimeout(() => document.addEventListener("pointerdown", outside));
  close = (focuses) => {
    close = () => {};
    document.removeEventListener("pointerdown", outside);
    button.setAttribute("aria-expanded", "false");
    menu.remove();
    if (focuses) button.focus();
  };
  items[0].focus();
}

function move(event, items) {
  const at = items.indexOf(document.activeElement);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 }[event.key];
  if (to !== undefined) {
    event.preventDefault();
    items[(to + items.length) % items.length].focus();
  } else if (event.key === "Escape" || event.key === "Tab") {
    event.preventDefault();
    close(true);
  }
}

/** Below the button, or above it where there is no room; never beyond an edge. */
export function place(element, { left, top, bottom, right }) {
  const { width, height } = element.getBoundingClientRect();
  const x = left + width > innerWidth - 8 ? Math.max(8, right - width) : Math.max(8, left);
  const y = bottom + height > innerHeight - 8 ? Math.max(8, top - height - 4) : bottom + 4;
  element.style.left = `${Math.min(x, innerWidth - width - 8)}px`;
  element.style.top = `${y}px`;
}
