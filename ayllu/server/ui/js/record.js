/** A button that listens to the microphone until it is pressed again. */

import { announce, h, icon, toast } from "./dom.js";
import { t } from "./words.js";

const MOST_S = 60;

/** `onend(blob)` gets what was said. */
export function recorder(onend) {
  let machine = null;
  const button = h("button", { type: "button", class: "icon-button speak", onclick: () => (machine ? stop() : begin()) });
  const show = () => {
    const label = t(machine ? "media.stop" : "media.speak");
    button.replaceChildren(icon(machine ? "stop" : "microphone"));
    button.setAttribute("aria-label", label);
    button.setAttribute("aria-pressed", String(Boolean(machine)));
    button.title = label;
  };
  const stop = () => machine?.state === "recording" && machine.stop();
  async function begin() {
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    } catch (error) {
      toast(t("media.refused", { why: error.message }));
      return;
    }
    const pieces = [];
    machine = new MediaRecorder(stream);
    machine.addEventListener("dataavailable", ({ data }) => pieces.push(data));
    machine.addEventListener("stop", () => {
      clearTimeout(timer);
      stream.getTracks().forEach((track) => track.stop());
      machine = null;
      show();
      onend(new Blob(pieces));
    });
    const timer = setTimeout(stop, MOST_S * 1000);
    machine.start();
    announce(t("media.listening"));
    show();
  }
  show();
  return button;
}
