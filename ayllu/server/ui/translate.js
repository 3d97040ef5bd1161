/** A language switch for any page: one tag, and what is on the page is translated while people browse.

      <script src="http://127.0.0.1:8000/ui/translate.js" data-to="zh en" data-from="en" defer></script>

    The page keeps its elements: text nodes get other words, and inline elements are moved with theirs, so links and
    listeners stay. What is in view goes first; what comes later (a MutationObserver hears of it) is translated, too.
    Translations are kept in this browser, and the words of the page come back by the same switch. `data-to`: languages to
    choose from; `data-from`: that of the page, by default its lang; `data-key`: a key, where the server wants one; anybody reads
    it there, so let it be one of `ayllu key --translator ORIGIN`. */

(() => {
  const script = document.currentScript;
  const server = new URL("../v1/translate", script.src).href;
  const from = script.dataset.from || document.documentElement.lang.slice(0, 2) || null;
  const choices = (script.dataset.to || "zh").split(/[\s,]+/).filter(Boolean);
  const AT_ONCE = 24; // texts of one call
  const KEPT = 3000; // translations in this browser
  const INLINE = new Set("A ABBR ACRONYM B BDI BDO BIG CITE DEL DFN EM FONT I INS LABEL MARK Q S SMALL SPAN STRIKE STRONG SUB SUP TIME U".split(" "));
  const HOLES = new Set("CODE KBD SAMP VAR TT IMG WBR svg math MATH SVG DATA OUTPUT INPUT".split(" "));
  const SKIPPED = new Set("SCRIPT STYLE PRE TEXTAREA TEMPLATE NOSCRIPT CANVAS OBJECT AUDIO VIDEO IFRAME".split(" "));
  const ATTRIBUTES = ["title", "alt", "placeholder", "aria-label"];
  const LETTER = /\p{L}/u;
  const MARK = /<(\/?)(\d{1,4})(\/?)>/g;
  const STORE = `ayllu.translations.${server}`;

  let to = null; // null: the page as it was
  let runs = new Map(); // first node of a run -> run
  let waiting = new Set();
  let isAsking = false;
  let timer = null;

  const cache = new Map(read(STORE, []));
  function read(key, otherwise) {
    try {
      return JSON.parse(localStorage.getItem(key)) ?? otherwise;
    } catch {
      return otherwise; // a browser that keeps nothing, or another's value
    }
  }
  function write(key, value) {
    try {
      localStorage.setItem(key, JSON.stringify(value));
    } catch {
      // full or forbidden: this visit has them in memory
    }
  }

  const isKept = (element) =>
    SKIPPED.has(element.tagName) || element.translate === false || element.classList.contains("notranslate") || element.isContentEditable;
  const isInline = (node) =>
    node.nodeType === Node.TEXT_NODE ||
    (node.nodeType === Node.ELEMENT_NODE &&
      (HOLES.has(node.tagName) || isHole(node) || (INLINE.has(node.tagName) && [...node.childNodes].every((child) => isInline(child) || child.nodeType === Node.COMMENT_NODE))));
  const isHole = (node) => HOLES.has(node.tagName) || (INLINE.has(node.tagName) && isKept(node));

  /** The texts below an element: runs of neighbours that stand in one line of text, and attributes. */
  function collect(root) {
    if (root.nodeType !== Node.ELEMENT_NODE || isKept(root) || root === host) return;
    addAttributes(root);
    let nodes = [];
    const flush = () => {
      for (const node of nodes) if (node.nodeType === Node.ELEMENT_NODE) [node, ...node.querySelectorAll("*")].forEach(addAttributes);
      const links = nodes.filter((node) => node.tagName === "A");
      const isMenu = links.length > 1 && nodes.every((node) => node.tagName === "A" || !LETTER.test(node.textContent));
      for (const run of isMenu ? links.map((link) => [link]) : [nodes]) {
        if (run.some((node) => LETTER.test(node.textContent))) addRun(run);
      }
      nodes = [];
    };
    for (const child of [...root.childNodes]) {
      if (isInline(child)) nodes.push(child);
      else {
        flush();
        collect(child);
      }
    }
    flush();
  }

  function addAttributes(node) {
    if (isKept(node)) return;
    for (const name of ATTRIBUTES) {
      const value = node.getAttribute(name);
      if (value && LETTER.test(value)) add({ node, name, source: value, text: value });
    }
  }

  function addRun(nodes) {
    const elements = [];
    const text = nodes.map((node) => serialised(node, elements)).join("").replace(/\s+/g, " ").trim();
    if (!LETTER.test(text.replace(MARK, ""))) return;
    const holder = nodes[0].parentNode;
    const words = textsOf(nodes);
    const old = runs.get(nodes[0]);
    if (old && old.written && words.join("") === old.written) return; // our own words
    add({ nodes, elements, text, holder, trees: elements.map((node) => [...node.childNodes]), values: valuesOf(nodes) });
  }

  function serialised(node, elements) {
    if (node.nodeType === Node.TEXT_NODE) return node.data.replace(/<(?=\/?\d)/g, "< ");
    if (node.nodeType !== Node.ELEMENT_NODE) return "";
    elements.push(node);
    const number = elements.length;
    if (isHole(node)) return `<${number}/>`;
    return `<${number}>${[...node.childNodes].map((child) => serialised(child, elements)).join("")}</${number}>`;
  }

  const allTexts = (node) =>
    node.nodeType === Node.TEXT_NODE ? [node] : isHole(node) ? [] : [...node.childNodes].flatMap(allTexts);
  const textsOf = (nodes) => nodes.flatMap(allTexts).map((node) => node.data);
  const valuesOf = (nodes) => nodes.flatMap(allTexts).map((node) => [node, node.data]);

  function add(run) {
    const key = run.nodes ? run.nodes[0] : run.node;
    if (run.nodes) runs.set(key, run);
    else {
      const known = (run.node.aylluAttributes ??= new Map());
      if (known.get(run.name)?.written === run.source) return;
      known.set(run.name, run);
      runs.set({ attribute: run }, run);
    }
    waiting.add(run);
  }

  const keyOf = (run) => `${from}>${to} ${run.text}`;

  /** Ask for what waits: what is in view first. */
  async function work() {
    if (isAsking || to === null) return;
    isAsking = true;
    const asked = to;
    let batch = [];
    try {
      while (waiting.size && to === asked) {
        const order = [...waiting].filter(isThere).sort((a, b) => distance(a) - distance(b));
        waiting = new Set(order);
        const known = order.filter((run) => cache.has(keyOf(run)));
        for (const run of known) {
          waiting.delete(run);
          put(run, cache.get(keyOf(run)));
        }
        batch = order.filter((run) => waiting.has(run)).slice(0, AT_ONCE);
        if (!batch.length) break;
        batch.forEach((run) => waiting.delete(run));
        show(`${choice.selectedOptions[0].textContent} …`);
        const found = await ask([...new Set(batch.map((run) => run.text))], asked);
        if (to !== asked) return;
        for (const run of batch) {
          cache.set(keyOf(run), found.get(run.text));
          put(run, found.get(run.text));
        }
      }
      show("");
    } catch (error) {
      if (to === asked) {
        batch.forEach((run) => waiting.add(run)); // asked again with what comes next
        show(error.message);
        if (error.wait_s) setTimeout(work, 1000 * error.wait_s);
      }
    } finally {
      isAsking = false;
      keep();
    }
    if (to !== asked && to !== null) work();
  }

  function keep() {
    while (cache.size > KEPT) cache.delete(cache.keys().next().value);
    write(STORE, [...cache]);
  }

  async function ask(texts, into) {
    const headers = { "content-type": "application/json" };
    if (script.dataset.key) headers.authorization = `Bearer ${script.dataset.key}`;
    const body = { texts, to: into, marked: true, ...(from ? { from } : {}) };
    const answer = await fetch(server, { method: "POST", headers, body: JSON.stringify(body) });
    const found = await answer.json();
    if (!answer.ok) {
      const wait_s = [429, 503].includes(answer.status) ? Number(answer.headers.get("retry-after")) || 5 : 0; // elsewhere it may not be readable
      throw Object.assign(new Error(found.error?.message ?? `HTTP ${answer.status}`), { wait_s });
    }
    return new Map(texts.map((text, i) => [text, found.translations[i].translation]));
  }

  const isThere = (run) => (run.nodes ? run.nodes.every((node) => node.parentNode === run.holder) : run.node.isConnected);
  function distance(run) {
    const box = (run.holder ?? run.node).getBoundingClientRect();
    return box.bottom < 0 ? 2 * innerHeight - box.bottom : box.top;
  }

  /** Write a translation: each inline element keeps being the same one, and moves to where its words are. */
  function put(run, translation) {
    if (!isThere(run)) return;
    if (!run.nodes) {
      run.written = translation;
      return quietly(() => run.node.setAttribute(run.name, translation));
    }
    quietly(() => putRun(run, translation));
  }

  /** Our own changes are not heard; what the page did just before them is. */
  function quietly(change) {
    heard(observer.takeRecords());
    observer.disconnect();
    change();
    observe();
  }

  function putRun(run, translation) {
    const first = textsOf(run.nodes).join("");
    const blanks = [/^\s/.test(first) ? " " : "", /\s$/.test(first) ? " " : ""];
    const after = run.nodes.at(-1).nextSibling;
    const stack = [{ node: run.holder, children: [] }];
    let place = 0;
    const text = blanks[0] + translation + blanks[1];
    for (const match of text.matchAll(MARK)) {
      stack.at(-1).children.push(text.slice(place, match.index));
      place = match.index + match[0].length;
      const node = run.elements[Number(match[2]) - 1];
      if (match[3]) stack.at(-1).children.push(node);
      else if (!match[1]) stack.push({ node, children: [] });
      else {
        const { node: done, children } = stack.pop();
        done.replaceChildren(...children.filter((child) => child !== ""));
        stack.at(-1).children.push(done);
      }
    }
    stack[0].children.push(text.slice(place));
    const nodes = stack[0].children.filter((child) => child !== "").map((child) => (typeof child === "string" ? document.createTextNode(child) : child));
    run.original ??= run.nodes;
    runs.delete(run.nodes[0]);
    for (const node of run.nodes) if (!nodes.includes(node)) node.remove();
    for (const node of nodes) run.holder.insertBefore(node, after);
    run.nodes = nodes;
    run.written = textsOf(nodes).join("");
    runs.set(nodes[0], run);
  }

  /** The page's own words again. */
  function restore() {
    observer.disconnect();
    clearTimeout(timer);
    for (const run of runs.values()) {
      if (!run.written) continue;
      if (!run.nodes) {
        if (run.node.getAttribute(run.name) === run.written) run.node.setAttribute(run.name, run.source);
        continue;
      }
      if (!isThere(run)) continue;
      const after = run.nodes.at(-1).nextSibling;
      for (const node of run.nodes) node.remove();
      run.elements.forEach((element, i) => isHole(element) || element.replaceChildren(...run.trees[i]));
      for (const [node, value] of run.values) node.data = value;
      for (const node of run.original) run.holder.insertBefore(node, after);
    }
    runs = new Map();
    document.querySelectorAll("*").forEach((element) => delete element.aylluAttributes);
    document.documentElement.lang = lang;
  }

  const pending = new Set();
  const observer = new MutationObserver(heard);
  function heard(changes) {
    if (!changes.length) return;
    for (const { target } of changes) {
      const root = target.nodeType === Node.TEXT_NODE ? target.parentElement : target;
      if (root) pending.add(root);
    }
    clearTimeout(timer);
    timer = setTimeout(() => {
      const late = [...pending].filter((root) => root.isConnected);
      pending.clear();
      if (to !== null) late.forEach((root) => collect(blockOf(root)));
      work();
    }, 120);
  }
  function observe() {
    if (to === null) return;
    if (title()) observer.observe(title(), { subtree: true, childList: true, characterData: true });
    observer.observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true, attributeFilter: ATTRIBUTES });
  }
  const title = () => document.querySelector("head > title");
  function blockOf(element) {
    while (INLINE.has(element.tagName) && element.parentElement) element = element.parentElement;
    return element;
  }

  function choose(language) {
    const lost = to !== null;
    to = null;
    if (lost) restore();
    waiting = new Set();
    show("");
    write("ayllu.language", language || null);
    if (!language) return;
    to = language;
    document.documentElement.lang = language;
    if (title()) collect(title()); // of the tab
    collect(document.body);
    observe();
    work();
  }

  // The switch, in a shadow so that neither page nor switch changes the other's looks.
  const lang = document.documentElement.lang;
  const nameOf = (code) => new Intl.DisplayNames([code], { type: "language" }).of(code);
  const host = document.createElement("div");
  host.className = "notranslate";
  const choice = document.createElement("select");
  const status = document.createElement("span");
  const show = (text) => (status.textContent = text);
  function draw() {
    const shadow = host.attachShadow({ mode: "open" });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(
      ":host{position:fixed;inset-block-end:1rem;inset-inline-start:1rem;z-index:2147483000;font:14px system-ui,sans-serif;color-scheme:light dark}" +
        "label{display:flex;align-items:center;gap:.5em;padding:.4em .6em;border:1px solid #8886;border-radius:999px;background:Canvas;color:CanvasText;box-shadow:0 2px 12px #0003}" +
        "select{font:inherit;color:inherit;background:Canvas;border:0;padding:.2em}select:focus-visible{outline:2px solid Highlight;border-radius:4px}span:empty{display:none}span{max-width:16em;font-size:.85em}",
    );
    shadow.adoptedStyleSheets = [sheet];
    choice.setAttribute("aria-label", "Language");
    const own = document.createElement("option");
    own.value = "";
    own.textContent = from ? nameOf(from) : "Original";
    choice.append(own);
    for (const code of choices.filter((code) => code !== from)) {
      const option = document.createElement("option");
      option.value = code;
      option.lang = code;
      option.textContent = nameOf(code);
      choice.append(option);
    }
    status.setAttribute("role", "status");
    choice.addEventListener("change", () => choose(choice.value));
    const label = document.createElement("label");
    label.append(status, choice);
    shadow.append(label);
    document.body.append(host);
    const before = read("ayllu.language", "");
    if ([...choice.options].some(({ value }) => value && value === before)) {
      choice.value = before;
      choose(before);
    }
  }
  if (document.body) draw();
  else addEventListener("DOMContentLoaded", draw);
})();
