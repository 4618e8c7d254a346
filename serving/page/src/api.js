// Asks the server. Errors are `ApiError`s whose message can be shown as it is.
import { signal } from "@preact/signals";

const KEPT = "genrec-key";

/** The API key: in this tab's memory and its session storage, gone when the tab is closed, and never in an address. */
export const key = signal(sessionStorage.getItem(KEPT) ?? "");
/** What the server said about the key, "" while it is content. */
export const locked = signal("");

export class ApiError extends Error {}

export function useKey(text) {
  sessionStorage.setItem(KEPT, text);
  locked.value = "";
  key.value = text;
}

/** With the key goes all that it let this tab see. */
export function forgetKey() {
  sessionStorage.removeItem(KEPT);
  location.reload();
}

/** GET, or POST where there is a body. params: of the address; lists are repeated. abort: an AbortSignal. */
export async function ask(path, { params = {}, body, abort } = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) for (const one of [value].flat()) query.append(name, one);
  const headers = { Accept: "application/json" };
  if (key.value) headers.Authorization = `Bearer ${key.value}`;
  if (body) headers["Content-Type"] = "application/json";
  const address = query.size ? `${path}?${query}` : path;
  let response, answer;
  try {
    response = await fetch(address, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal: abort });
    answer = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(
      response ? `The server's answer cannot be read (status ${response.status}).` : "The server does not answer. Is it still running?",
    );
  }
  if (response.ok) return answer;
  const message = answer.error?.message ?? `The server refused this (status ${response.status}).`;
  if (response.status === 401) locked.value = key.value ? message : "This server asks for an API key.";
  throw new ApiError(message);
}
