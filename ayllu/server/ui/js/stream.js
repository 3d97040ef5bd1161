/** Server-sent events, read from the bytes as they come, wherever the network cuts them. */

/** Takes pieces of text, gives the data of each event that is whole. Comments go to `oncomment`; other fields are
    passed over. */
export class EventParser {
  #rest = "";
  #data = [];
  #oncomment;

  constructor(oncomment = () => {}) {
    this.#oncomment = oncomment;
  }

  push(text) {
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    const found = [];
    for (const line of lines) {
      if (line === "" && this.#data.length) {
        found.push(this.#data.join("\n"));
        this.#data = [];
      } else if (line.startsWith("data:")) {
        this.#data.push(line.slice(line[5] === " " ? 6 : 5));
      } else if (line.startsWith(":")) {
        this.#oncomment(line.slice(1).trim());
      }
    }
    return found;
  }
}

/** Each event of a response's body as a parsed value. Ends at "[DONE]"; without it the connection broke. */
export async function* events(body, oncomment) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  const parser = new EventParser(oncomment);
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) throw new TypeError("the stream ended before its last event");
      for (const data of parser.push(value)) {
        if (data === "[DONE]") return;
        yield JSON.parse(data);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
