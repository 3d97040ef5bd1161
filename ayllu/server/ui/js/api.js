/** Calls to the server. Addresses are relative, so the page works below a prefix, too. */

const KEY = "ayllu.key"; // in sessionStorage: gone with the tab

/** An answer that is no success, in the server's own words. */
export class ApiError extends Error {
  constructor(status, error = {}, retryAfter = null) {
    super(typeof error.message === "string" ? error.message : `HTTP ${status}`);
    this.status = status;
    this.param = error.param ?? null;
    this.code = error.code ?? null;
    this.retryAfter = retryAfter; // seconds
  }
}

/** No answer, or one that broke off. */
export class Lost extends Error {}

let askForKey = async () => false;

/** `ask(isWrong)` is called when the server wants a key; it resolves to whether one was given. */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

export const keepKey = (key) => sessionStorage.setItem(KEY, key);
export const hasKey = () => sessionStorage.getItem(KEY) !== null;
export const forgetKey = () => sessionStorage.removeItem(KEY);

/** The response to a GET, or to a POST of `body`; throws ApiError or Lost. */
export async function open(path, body, signal) {
  for (;;) {
    const response = await send(path, body, signal);
    if (response.ok) return response;
    const error = await problem(response);
    if (error.status !== 401 || !(await askForKey(hasKey()))) throw error;
  }
}

/** The same, read as JSON. */
export async function call(path, body, signal) {
  const response = await open(path, body, signal);
  try {
    return await response.json();
  } catch (error) {
    throw signal?.aborted ? error : new Lost(error.message);
  }
}

async function send(path, body, signal) {
  const headers = { accept: "application/json, text/event-stream" };
  const key = sessionStorage.getItem(KEY);
  if (key !== null) headers.authorization = `Bearer ${key}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  const method = body === undefined ? "GET" : "POST";
  try {
    return await fetch(path, { method, headers, signal, body: body && JSON.stringify(body), cache: "no-store" });
  } catch (error) {
    throw signal?.aborted ? error : new Lost(error.message);
  }
}

async function problem(response) {
  const wait = Number(response.headers.get("retry-after"));
  const body = await response.json().catch(() => ({}));
  return new ApiError(response.status, body.error, wait > 0 ? wait : null);
}
