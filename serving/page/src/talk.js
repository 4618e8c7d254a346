// The conversation: messages to the server and what came back. The server keeps its memory under a random name.
import { batch, effect, signal } from "@preact/signals";
import { ApiError, ask } from "./api.js";
import { ids, model, prepared, where } from "./state.js";

export const turns = signal([]); // {role: "user", text} or {role: "assistant", said, items, question, missed}
export const rules = signal([]); // texts, in the order of their numbers
export const busy = signal(false);
export const failed = signal("");

// Not crypto.randomUUID: that one is missing where the page came over plain HTTP from another machine.
const name = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
let session = name();

export function startOver() {
  session = name();
  batch(() => {
    turns.value = [];
    rules.value = [];
    failed.value = "";
    busy.value = false;
  });
}

/** Sends a message. Returns whether it was answered. */
export async function send(text) {
  const asked = session;
  const body = { model: model.value, session, messages: [{ role: "user", content: text }], filters: prepared.value };
  if (ids.value.length) body.history = ids.value;
  if (where.value) body.where = where.value;
  batch(() => {
    failed.value = "";
    busy.value = true;
    turns.value = [...turns.value, { role: "user", text }];
  });
  try {
    const { said, items, question, not_understood, rules: now } = (await ask("v1/chat/completions", { body })).genrec;
    if (asked !== session) return true; // started over meanwhile
    batch(() => {
      turns.value = [...turns.value, { role: "assistant", said, items, question, missed: not_understood }];
      rules.value = now.map((rule) => rule.text);
    });
    return true;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (asked === session) {
      batch(() => {
        turns.value = turns.value.slice(0, -1); // it was not heard: it stands in the box again
        failed.value = error.message;
      });
    }
    return false;
  } finally {
    if (asked === session) busy.value = false;
  }
}

// A conversation is about one catalogue.
effect(() => {
  void model.value;
  startOver();
});
