/** Files brought by drop or by choice, sent to the server at once, each with its progress and a way to take it back. */

import { remove, upload } from "./api.js";
import { announce, h, icon, iconButton } from "./dom.js";
import { about, size } from "./roompage.js";
import { n, t } from "./words.js";

/** `kinds`: endings such as ".csv" (any where left out); `many`: more than one at a time; `limit`: bytes of a file,
    where less is taken than the server keeps. `onchange(files)` gets the
    uploads so far, [{id, name, bytes}], also those in `kept`, which were brought before. Gives the element. */
export function dropZone({ kinds = [], many = false, kept = [], limit = Infinity, label, onchange }) {
  let files = [...kept];
  const list = h("ul", { class: "uploads" });
  const takes = h("span", { class: "note" });
  about().then(
    ({ upload_bytes }) => {
      const most = size(Math.min(upload_bytes, limit));
      takes.textContent = kinds.length ? t("drop.takes", { kinds: kinds.join(" "), size: most }) : t("drop.any", { size: most });
    },
    () => {},
  );
  const field = h("input", {
    type: "file",
    class: "unseen",
    multiple: many,
    accept: kinds.join(",") || null,
    onchange: () => {
      bring([...field.files]);
      field.value = "";
    },
  });
  const zone = h(
    "label",
    {
      class: "drop",
      ondragover: (event) => {
        event.preventDefault();
        zone.classList.add("over");
      },
      ondragleave: () => zone.classList.remove("over"),
      ondrop: (event) => {
        event.preventDefault();
        zone.classList.remove("over");
        bring([...event.dataTransfer.files]);
      },
    },
    icon("upload"),
    h("span", {}, label ?? t(many ? "drop.here" : "drop.one")),
    takes,
    field,
  );
  const changed = () => onchange([...files]);
  const row = (file) => {
    const line = h("li", {}, icon("file"), h("span", { class: "grow" }, t("drop.done", { name: file.name, size: size(file.bytes) })));
    line.append(
      iconButton("close", t("drop.remove", { name: file.name }), () => {
        files = files.filter(({ id }) => id !== file.id);
        line.remove();
        remove(`v1/files/${file.id}`).catch(() => {}); // gone already, or the server keeps it a while longer
        changed();
      }),
    );
    return line;
  };
  async function bring(chosen) {
    for (const file of many ? chosen : chosen.slice(0, 1)) {
      const { name } = file;
      const line = h("li", { role: "status" }, icon("file"), h("span", { class: "grow" }, name));
      const says = line.lastChild;
      list.append(line);
      try {
        await check(file, kinds, limit);
        const found = await upload(file, (share) => {
          says.textContent = t("drop.sending", { name, percent: `${n(share * 100)} %` });
        });
        if (!many) list.querySelectorAll("li:not([role])").forEach((old) => old.querySelector("button").click());
        files.push(found);
        line.replaceWith(row(found));
        announce(t("drop.done", { name, size: size(found.bytes) }));
        changed();
      } catch (error) {
        says.textContent = t("drop.failed", { name, why: error.message });
        line.classList.add("wrong");
        line.append(iconButton("close", t("drop.remove", { name }), () => line.remove()));
      }
    }
  }
  list.append(...files.map(row));
  return h("div", { class: "drop-zone" }, zone, list);
}

async function check({ name, size: bytes }, kinds, limit) {
  const most = Math.min((await about()).upload_bytes, limit);
  if (!bytes) throw new Error(t("drop.empty"));
  if (bytes > most) throw new Error(t("drop.large", { name, size: size(bytes), most: size(most) }));
  if (kinds.length && !kinds.some((kind) => name.toLowerCase().endsWith(kind)))
    throw new Error(t("drop.wrong", { name, kinds: kinds.join(" ") }));
}
