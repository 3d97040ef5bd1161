/** Calls to the server. Addresses are relative, so the page works below a prefix, too. */

import { explained } from "./faults.js";
import { t } from "./words.js";

const KEY = "ayllu.key"; // in sessionStorage: gone with the tab

/** An answer that is no success: `detail` in the server's own words, `message` in the reader's language before them. */
export class ApiError extends Error {
  constructor(status, error = {}, retryAfter = null) {
    super();
    this.detail = typeof error.message === "string" ? error.message : `HTTP ${status}`;
    this.status = status;
    this.param = error.param ?? null;
    this.code = error.code ?? null;
    this.retryAfter = retryAfter; // seconds
  }

  get message() {
    return explained(this.detail, this);
  }
}

/** No answer, or one that broke off; `detail` is what the browser says of it. */
export class Lost extends Error {
  constructor(detail) {
    super();
    this.detail = detail;
  }

  get message() {
    return [t("error.lost"), this.detail].filter(Boolean).join("\n");
  }
}

let askForKey = async () => false;

/** `ask(isWrong)` is called when the server wants a key; it resolves to whether one was given. */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

export const keepKey = (key) => sessionStorage.setItem(KEY, key);
export const heldKey = () => sessionStorage.getItem(KEY);
export const hasKey = () => sessionStorage.getItem(KEY) !== null;
export const forgetKey = () => sessionStorage.removeItem(KEY);

/** The response to a GET, or to a POST of `body`; throws ApiError or Lost. */
export async function open(path, body, signal, method = body === undefined ? "GET" : "POST") {
  for (;;) {
    const response = await send(path, body, signal, method);
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
    throw signal?.aborted ? error : new Lost(error.detail ?? error.message);
  }
}

/** Remove what stands at a path. */
export async function remove(path) {
  return (await open(path, undefined, undefined, "DELETE")).json();
}

/** The bytes of a file that the server keeps. */
export async function fetchFile(id) {
  return (await open(`v1/files/${id}/content`)).blob();
}

/** Bring a file; `onprogress` gets the share that was sent. Gives {id, name, bytes}. */
export async function upload(file, onprogress = () => {}) {
  for (;;) {
    const request = await sent(file, onprogress);
    if (request.status === 200) return request.response;
    if (request.status === 0) throw new Lost("");
    if (request.status !== 401 || !(await askForKey(hasKey()))) {
      throw new ApiError(request.status, request.response?.error);
    }
  }
}

function sent(file, onprogress) {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest(); // fetch tells nothing of how much was sent
    request.open("POST", `v1/files?name=${encodeURIComponent(file.name)}`);
    request.responseType = "json";
    if (hasKey()) request.setRequestHeader("authorization", `Bearer ${sessionStorage.getItem(KEY)}`);
    request.upload.addEventListener("progress", ({ loaded, total }) => onprogress(total ? loaded / total : 1));
    request.addEventListener("loadend", () => resolve(request));
    request.send(file);
  });
}

async function send(path, body, signal, method) {
  const headers = { accept: "application/json, text/event-stream" };
  const key = sessionStorage.getItem(KEY);
  if (key !== null) headers.authorization = `Bearer ${key}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  try {
    return await fetch(path, { method, headers, signal, body: body && JSON.stringify(body), cache: "no-store" });
  } catch (error) {
    throw signal?.aborted ? error : new Lost(error.detail ?? error.message);
  }
}

async function problem(response) {
  const wait = Number(response.headers.get("retry-after"));
  const body = await response.json().catch(() => ({}));
  return new ApiError(response.status, body.error, wait > 0 ? wait : null);
}
