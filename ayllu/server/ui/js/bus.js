/** News between the parts: "list", "thread", "node" (with the node's id), "settings", "server", "draft", "language". */

const bus = new EventTarget();
let drawing = new AbortController();

export const emit = (name, detail) => bus.dispatchEvent(new CustomEvent(name, { detail }));

/** Listen until the page is drawn anew (in another language, say); `forever` for what outlives its views. */
export function on(name, listener, { forever = false } = {}) {
  bus.addEventListener(name, (event) => listener(event.detail), forever ? {} : { signal: drawing.signal });
}

/** Forget the listeners of the views that are about to go. */
export function beginDrawing() {
  drawing.abort();
  drawing = new AbortController();
}
