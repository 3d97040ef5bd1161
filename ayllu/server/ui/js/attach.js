/** Images and sounds beside what is being written: chosen, dropped, pasted or spoken, shown until they are sent. */

import { emit } from "./bus.js";
import { announce, h, iconButton, toast } from "./dom.js";
import { library } from "./library.js";
import { bytesOf, MOST, MOST_BYTES, mediumOf, soundOf } from "./media.js";
import { recorder } from "./record.js";
import { size } from "./roompage.js";
import { modelOf, server, takesOf } from "./server.js";
import { settings } from "./settings.js";
import { shownMedia } from "./showmedia.js";
import { path } from "./tree.js";
import { t } from "./words.js";

/** What every model that will be asked takes besides text: of "image" and "audio". */
export function takes() {
  if (library.current.kind !== "chat" || server.state !== "ready") return [];
  const sides = Object.values(settings.sides).slice(0, settings.compare ? 2 : 1);
  return ["image", "audio"].filter((kind) => sides.every((side) => takesOf(modelOf(side)).includes(kind)));
}

export const waiting = () => library.media ?? [];

/** Give up what waits, to be sent. */
export function taken() {
  const media = waiting();
  library.media = [];
  emit("draft");
  return media;
}

/** {tray, buttons, update, listen}: `listen(element)` takes what is dropped and pasted there. */
export function attachments() {
  const tray = h("div", { class: "tray", role: "group", "aria-label": t("media.list") });
  const field = h("input", {
    type: "file",
    class: "unseen",
    multiple: true,
    tabindex: -1,
    "aria-hidden": "true",
    onchange: () => {
      bring([...field.files]);
      field.value = "";
    },
  });
  const choose = iconButton("clip", t("media.add"), () => field.click());
  const speak = recorder(async (blob) => {
    await keep(() => soundOf(blob, t("media.recording"), { cuts: true }), t("media.recording"));
  });
  let drawn = null;
  const update = () => {
    const kinds = takes();
    choose.hidden = !kinds.length;
    field.accept = kinds.map((kind) => `${kind}/*`).join(",");
    speak.hidden = !kinds.includes("audio") || !navigator.mediaDevices;
    if (drawn === waiting()) return;
    drawn = waiting();
    tray.hidden = !drawn.length;
    tray.replaceChildren(...drawn.map((medium) => shownMedia(medium, () => remove(medium, choose))));
  };
  return { tray, buttons: [field, choose, speak], update, listen };
}

function listen(element) {
  const files = (data) => [...(data?.files ?? [])];
  element.addEventListener("dragover", (event) => {
    if (!takes().length || ![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    element.classList.add("over");
  });
  element.addEventListener("dragleave", () => element.classList.remove("over"));
  element.addEventListener("drop", (event) => {
    element.classList.remove("over");
    if (!takes().length || !files(event.dataTransfer).length) return;
    event.preventDefault();
    bring(files(event.dataTransfer));
  });
  element.addEventListener("paste", (event) => {
    if (!takes().length || !files(event.clipboardData).length) return;
    event.preventDefault();
    bring(files(event.clipboardData));
  });
}

async function bring(files) {
  for (const file of files) await keep(() => mediumOf(file), file.name);
}

async function keep(make, name) {
  try {
    const medium = await make();
    const kept = [...path(library.current).flatMap(({ media = [] }) => media), ...waiting()];
    if (!takes().includes(medium.kind)) throw new Error(t(`media.no.${medium.kind}`));
    const most = { name, most: size(MOST_BYTES), n: MOST };
    if (kept.length >= MOST || bytesOf([...kept, medium]) > MOST_BYTES) throw new Error(t("media.many", most));
    library.media = [...waiting(), medium];
    announce(t("media.added", { name }));
    emit("draft");
  } catch (error) {
    announce(error.message);
    toast(error.message);
  }
}

function remove(medium, next) {
  library.media = waiting().filter((one) => one !== medium);
  announce(t("media.removed", { name: medium.name }));
  emit("draft");
  next.focus();
}
