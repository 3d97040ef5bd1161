/** Customer service in any web page, by one tag:

      <script src="https://your.server/ui/widget.js" data-key="ayllu-..." data-language="en" defer></script>

    The key should be one that `ayllu key --widget` made: everybody who reads the page can read it. What it brings into
    the page lives in a shadow tree with its own style; text goes in as text. A conversation is named by a secret that
    is kept in the tab (sessionStorage) and deleted on the server when the customer asks for that. */
(() => {
  const WORDS = {
    en: {
      open: "Open the chat", close: "Close the chat", field: "Your message", send: "Send", forget: "Delete this conversation",
      sure: "Delete this conversation, here and on the server?", up: "Helpful", down: "Not helpful", source: "From our pages: {name}",
      rate: "How was it?", stars: "{n} of 5", thanks: "Thank you.", lost: "The service can't be reached. Please try again.",
      person: "A person", waits: "Waiting for a person …", related: "Perhaps you mean: {name}",
      speak: "Speak", stop: "End the recording", refused: "The microphone can't be used: {why}",
    },
    zh: {
      open: "打开对话", close: "关闭对话", field: "您的问题", send: "发送", forget: "删除这次对话",
      sure: "在这里和服务器上删除这次对话？", up: "有帮助", down: "没有帮助", source: "依据：{name}",
      rate: "您满意吗？", stars: "{n} 分（满分 5）", thanks: "谢谢。", lost: "暂时连不上客服，请再试一次。",
      person: "人工客服", waits: "正在等待人工 …", related: "您是想问：{name}",
      speak: "说话", stop: "结束录音", refused: "无法使用麦克风：{why}",
    },
  };
  const STYLE = `
    :host { all: initial; position: fixed; inset: auto 1rem 1rem auto; z-index: 2147483000; color-scheme: light dark;
      --ink: #221f1c; --soft: #6a635b; --paper: #fff; --line: #e3dcd2; --accent: #a8432a; --on: #fff; --tint: #f6e7df; --edge: #8c8276;
      font: 400 15px/1.5 system-ui, "PingFang SC", "Noto Sans CJK SC", sans-serif; color: var(--ink); }
    @media (prefers-color-scheme: dark) {
      :host { --ink: #ece6de; --soft: #a59c91; --paper: #1e1b18; --line: #342e29; --accent: #f0997a; --on: #2a120a; --tint: #34231c; --edge: #7d7469; }
    }
    * { box-sizing: border-box; }
    button, input { font: inherit; color: inherit; }
    button { cursor: pointer; }
    svg { width: 1em; height: 1em; fill: none; stroke: currentcolor; stroke-width: 1.8; stroke-linejoin: round; display: block; }
    .down { transform: rotate(180deg); }
    :focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
    .toggle { width: 3.5rem; height: 3.5rem; border: 0; border-radius: 50%; background: var(--accent); color: var(--on);
      box-shadow: 0 6px 20px rgb(0 0 0 / 25%); font-size: 1.5rem; display: grid; place-items: center; }
    .panel { position: absolute; inset: auto 0 4.25rem auto; width: min(23rem, calc(100vw - 2rem)); height: min(34rem, calc(100dvh - 7rem));
      display: flex; flex-direction: column; border: 1px solid var(--line); border-radius: 16px; background: var(--paper); overflow: hidden;
      box-shadow: 0 12px 40px rgb(0 0 0 / 25%); }
    .panel[hidden] { display: none; }
    header { display: flex; align-items: center; gap: .25rem; padding: .625rem .5rem .625rem 1rem; border-bottom: 1px solid var(--line); }
    header strong { flex: 1; font-weight: 600; }
    .small { border: 0; border-radius: 8px; background: none; color: var(--soft); padding: .25rem .5rem; font-size: .8125rem; }
    .small:hover { background: var(--tint); color: var(--ink); }
    .said { flex: 1; overflow-y: auto; padding: .875rem; display: flex; flex-direction: column; gap: .5rem; }
    .said p { margin: 0; max-width: 86%; padding: .5rem .75rem; border-radius: 14px; background: var(--tint); white-space: pre-wrap; overflow-wrap: anywhere; align-self: flex-start; }
    .said .customer { align-self: flex-end; background: var(--accent); color: var(--on); }
    .said .note { background: none; padding: 0 .25rem; color: var(--soft); font-size: .75rem; }
    .said .more { display: flex; flex-wrap: wrap; gap: .25rem; }
    .said .more svg { font-size: 1rem; }
    .said .more .small { border: 1px solid var(--line); text-align: start; }
    .small[aria-pressed="true"] { background: var(--tint); color: var(--ink); border-color: var(--accent) !important; }
    form { display: flex; gap: .5rem; padding: .625rem; border-top: 1px solid var(--line); }
    form input { flex: 1; min-width: 0; padding: .5rem .75rem; border: 1px solid var(--edge); border-radius: 10px; background: var(--paper); }
    form button { border: 0; border-radius: 10px; padding: .5rem .875rem; background: var(--accent); color: var(--on); }
    form button:disabled { opacity: .5; }
    form .speak { font-size: 1.125rem; padding: .5rem .5625rem; border: 1px solid var(--edge); background: none; color: var(--ink); }
    form .speak[aria-pressed="true"] { border-color: var(--accent); background: var(--tint); color: var(--accent); }
    [hidden] { display: none !important; }`;

  const make = (tag, props = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(props)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  };

  const BUBBLE = "M4 5h16v11h-8l-4.5 4v-4H4z";
  const MICROPHONE = "M12 3.5a3 3 0 0 1 3 3V12a3 3 0 0 1-6 0V6.5a3 3 0 0 1 3-3zM5.5 11.5a6.5 6.5 0 0 0 13 0M12 18v3";
  const SQUARE = "M6.5 6.5h11v11h-11z";
  const THUMB = "M7 11v9H4v-9zM7 11l4-7c1.5 0 2.5 1 2.1 2.8L12.5 10H19a2 2 0 0 1 2 2.3l-.9 5.7A2 2 0 0 1 18 20H7";
  const drawing = (path, kind = "") => {
    const [svg, line] = ["svg", "path"].map((tag) => document.createElementNS("http://www.w3.org/2000/svg", tag));
    for (const [name, value] of Object.entries({ viewBox: "0 0 24 24", class: kind, "aria-hidden": "true" })) svg.setAttribute(name, value);
    line.setAttribute("d", path);
    svg.append(line);
    return svg;
  };

  const RATE = 16000; // samples of a second that servers are sent
  const MOST_S = 60; // of a recording

  /** What a browser recorded, as a WAV file with 16 bits and one channel, in base64. */
  async function wavOf(blob) {
    const sound = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(await blob.arrayBuffer());
    const samples = sound.getChannelData(0);
    const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
    const words = [0x52494646, 36 + 2 * samples.length, 0x57415645, 0x666d7420, 16, 1 | (1 << 16), RATE, 2 * RATE, 2 | (16 << 16), 0x64617461, 2 * samples.length];
    const LETTERS = [0, 2, 3, 9]; // RIFF, WAVE, "fmt ", data: those are read from the left
    words.forEach((word, i) => view.setUint32(4 * i, word, !LETTERS.includes(i)));
    samples.forEach((one, i) => view.setInt16(44 + 2 * i, Math.round(32767 * Math.max(-1, Math.min(1, one))), true));
    const reader = new FileReader();
    const read = new Promise((resolve, reject) => Object.assign(reader, { onload: resolve, onerror: reject }));
    reader.readAsDataURL(new Blob([view]));
    await read;
    return reader.result.slice(reader.result.indexOf(",") + 1);
  }

  /** Put the widget into this page, in the place of one that is there. */
  function mount({ server = new URL(".", location.href).href, key = null, language = "en", open = false, customer = "", bottom = "" } = {}) {
    document.querySelector("ayllu-support")?.remove();
    const words = WORDS[language.slice(0, 2)] ?? WORDS.en;
    const w = (name, values = {}) => words[name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
    const host = make("ayllu-support", { lang: language });
    host.style.bottom = bottom;
    const root = host.attachShadow({ mode: "open" });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
    root.adoptedStyleSheets = [sheet];
    const store = `ayllu.support ${server}`;
    let secret = sessionStorage.getItem(store);
    let last = 0;
    let state = "open";

    const said = make("div", { class: "said", role: "log", "aria-live": "polite" });
    const field = make("input", { "aria-label": w("field"), placeholder: w("field"), maxlength: 2000, autocomplete: "off" });
    const send = make("button", { type: "submit" }, w("send"));
    const speak = make("button", { type: "button", class: "speak", hidden: true, onclick: () => (machine ? machine.stop() : record()) });
    let machine = null;
    drawSpeak();
    const name = make("strong", {});
    const panel = make(
      "div", { class: "panel", role: "dialog", hidden: true },
      make("header", {}, name,
        make("button", { type: "button", class: "small", onclick: forget }, w("forget")),
        make("button", { type: "button", class: "small", "aria-label": w("close"), onclick: () => show(false) }, "✕")),
      said,
      make("form", { onsubmit: submit }, field, speak, send),
    );
    const toggle = make("button", { type: "button", class: "toggle", "aria-label": w("open"), "aria-expanded": "false", onclick: () => show(panel.hidden) }, drawing(BUBBLE));
    root.append(panel, toggle);
    panel.addEventListener("keydown", (event) => event.key === "Escape" && show(false));
    document.body.append(host);
    if (open) show(true);
    setInterval(poll, 4000);
    return host;

    async function ask(path, body) {
      const headers = { "content-type": "application/json", ...(key && { authorization: `Bearer ${key}` }) };
      const answer = await fetch(`${server}v1/support${path}`, { method: body ? "POST" : "GET", headers: body || key ? headers : {}, body: body && JSON.stringify(body) });
      const found = await answer.json().catch(() => ({}));
      if (!answer.ok) throw Object.assign(new Error(found.error?.message ?? w("lost")), { status: answer.status });
      return found;
    }

    async function show(isOpen) {
      panel.hidden = !isOpen;
      toggle.setAttribute("aria-expanded", String(isOpen));
      toggle.setAttribute("aria-label", w(isOpen ? "close" : "open"));
      if (!isOpen) return toggle.focus();
      field.focus();
      if (name.textContent) return poll();
      try {
        const about = await ask(`?language=${encodeURIComponent(language)}`);
        name.textContent = about.shop;
        speak.hidden = !about.hears || !navigator.mediaDevices;
        panel.setAttribute("aria-label", about.shop);
        line("assistant", about.greeting);
        await poll();
      } catch (error) {
        line("note", error.status ? error.message : w("lost"));
      }
    }

    async function submit(event) {
      event.preventDefault();
      const text = field.value.trim();
      if (text && (await put({ text }))) field.value = "";
      field.focus();
    }

    /** Send a message, {text} or {audio}; gives whether it arrived. */
    async function put(message) {
      if (send.disabled) return false;
      send.disabled = speak.disabled = true;
      try {
        take(await ask("/messages", { ...message, conversation: secret, language, customer }));
        return true;
      } catch (error) {
        if (error.status === 404 && secret) drop();
        line("note", error.status ? error.message : w("lost"));
        return false;
      } finally {
        send.disabled = speak.disabled = false;
      }
    }

    /** Listen until the button is pressed again, and send what was said. */
    async function record() {
      let stream;
      try {
        stream = await navigator.mediaDevices.getUserMedia({ audio: true });
      } catch (error) {
        return line("note", w("refused", { why: error.message }));
      }
      const pieces = [];
      machine = new MediaRecorder(stream);
      const timer = setTimeout(() => machine?.stop(), MOST_S * 1000);
      machine.ondataavailable = ({ data }) => pieces.push(data);
      machine.onstop = async () => {
        clearTimeout(timer);
        stream.getTracks().forEach((track) => track.stop());
        machine = null;
        drawSpeak();
        try {
          await put({ audio: { data: await wavOf(new Blob(pieces)) } });
        } catch (error) {
          line("note", error.message); // nothing was recorded that can be decoded
        }
      };
      machine.start();
      drawSpeak();
    }
    function drawSpeak() {
      const label = w(machine ? "stop" : "speak");
      for (const [key, value] of Object.entries({ "aria-label": label, title: label, "aria-pressed": String(Boolean(machine)) })) speak.setAttribute(key, value);
      speak.replaceChildren(drawing(machine ? SQUARE : MICROPHONE));
    }

    /** What a person wrote meanwhile. */
    async function poll() {
      if (!secret || panel.hidden || document.hidden || send.disabled || !host.isConnected) return;
      try {
        take(await ask("/history", { conversation: secret, after: last }));
      } catch (error) {
        if (error.status === 404) drop();
      }
    }

    function take(talk) {
      if (secret !== talk.conversation) sessionStorage.setItem(store, (secret = talk.conversation));
      for (const message of talk.messages.filter(({ number }) => number > last)) {
        last = message.number;
        if (message.role === "operator") line("note", w("person"));
        line(message.role, message.text);
        for (const { source, heading } of message.citations.slice(0, 1)) line("note", w("source", { name: heading || source }));
        if (message.kind === "answer") said.append(thumbs(message));
      }
      if (talk.state === "waiting" && state !== "waiting") line("note", w("waits"));
      if (talk.state === "closed" && state !== "closed") said.append(stars());
      state = talk.state;
      said.scrollTop = said.scrollHeight;
    }

    function line(kind, text) {
      said.append(make("p", { class: kind }, text));
      said.scrollTop = said.scrollHeight;
    }

    function choices(...buttons) {
      return make("div", { class: "more" }, ...buttons);
    }
    function choice(text, label, act) {
      const button = make("button", { type: "button", class: "small", "aria-label": label, title: label, "aria-pressed": "false" }, text);
      button.addEventListener("click", async () => {
        await act();
        for (const other of button.parentElement.children) other.setAttribute("aria-pressed", String(other === button));
      });
      return button;
    }
    function thumbs({ number, related }) {
      const rate = (thumb) => () => ask("/feedback", { conversation: secret, message: number, thumb }).catch(() => {});
      const others = related.map((heading) => choice(w("related", { name: heading }), heading, () => {
        field.value = heading;
        field.focus();
      }));
      return choices(choice(drawing(THUMB), w("up"), rate(1)), choice(drawing(THUMB, "down"), w("down"), rate(-1)), ...others);
    }
    function stars() {
      const rate = (satisfaction) => () => ask("/feedback", { conversation: secret, satisfaction }).then(() => line("note", w("thanks")), () => {});
      line("note", w("rate"));
      return choices(...[1, 2, 3, 4, 5].map((mark) => choice(`${mark}`, w("stars", { n: mark }), rate(mark))));
    }

    async function forget() {
      if (!confirm(w("sure"))) return;
      if (secret) await ask("/forget", { conversation: secret }).catch(() => {});
      drop();
      said.replaceChildren();
    }
    function drop() {
      sessionStorage.removeItem(store);
      secret = null;
      last = 0;
      state = "open";
    }
  }

  globalThis.aylluSupport = { mount };
  const own = document.currentScript; // null where another script imports this one
  if (own?.src) {
    const { key, language, customer } = own.dataset;
    const options = { server: new URL("../", own.src).href, key, language: language ?? document.documentElement.lang ?? "en", customer };
    if (document.body) mount(options);
    else addEventListener("DOMContentLoaded", () => mount(options));
  }
})();
