// What the page knows: signals that the parts show, and the requests that fill them.
import { batch, computed, effect, signal } from "@preact/signals";
import { ApiError, ask, key } from "./api.js";
import { whereOf } from "./where.js";

const PAUSE = 150; // ms after the last change before items are asked for
const CHUNK = 100; // ids in one address

export const models = signal([]);
export const model = signal(""); // name of the chosen one, "" before anything is loaded
export const columns = signal([]);
export const titleColumn = signal("title");
export const problem = signal(""); // of loading

export const history = signal([]); // {id, title}, oldest first
export const filters = signal([]);
export const own = signal(""); // a rule written by hand
export const prepared = signal([]); // names of the server's filters that are switched on
export const k = signal(10);
export const where = computed(() => whereOf(filters.value, own.value));
export const ids = computed(() => history.value.map((item) => item.id));

export const found = signal({ items: null, busy: false, error: "" });

export const chosen = computed(() => models.value.find((one) => one.name === model.value));

const said = (error) => {
  if (error instanceof ApiError) return error.message;
  throw error;
};

/** Models and columns, again too: after a key was typed, a bundle was swapped or the catalogue has changed. */
export async function load() {
  try {
    const served = await ask("v1/models");
    if (!Array.isArray(served)) throw new ApiError("This server lists its models in another form. The page needs `genrec serve`.");
    const name = served.some((one) => one.name === model.value) ? model.value : served[0].name;
    const told = await ask("v1/catalog/columns", { params: { model: name } });
    batch(() => {
      models.value = served;
      model.value = name;
      columns.value = told.columns;
      titleColumn.value = told.title;
      problem.value = "";
    });
  } catch (error) {
    problem.value = said(error);
  }
}

/** Another model has another catalogue: what was chosen from the old one goes. */
export function choose(name) {
  batch(() => {
    model.value = name;
    history.value = [];
    filters.value = [];
    prepared.value = [];
    own.value = "";
    found.value = { items: null, busy: false, error: "" };
  });
  load();
}

const versionOf = (answer) => `${answer.bundle} ${answer.catalogue.hash}`;
let version = "";

async function recommend(body, abort) {
  try {
    const answer = await ask("v1/recommendations", { body, abort });
    found.value = { items: answer.answers[0].items, busy: false, error: "" };
    if (version && version !== versionOf(answer)) load();
    version = versionOf(answer);
  } catch (error) {
    if (error.name === "AbortError") return;
    found.value = { items: null, busy: false, error: said(error) };
  }
}

export const again = signal(0); // counts "Try again"

export function start() {
  effect(() => {
    void key.value;
    load();
  });
  effect(() => {
    void again.value;
    void key.value;
    if (!model.value) return undefined;
    const body = { model: model.value, histories: [ids.value], k: k.value, filters: prepared.value, explain: true };
    if (where.value) body.where = where.value;
    found.value = { ...found.peek(), busy: true }; // from the first letter on: what is shown is old now
    const abort = new AbortController();
    const timer = setTimeout(() => recommend(body, abort.signal), PAUSE);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  });
}

export const titleOf = (item) => String(item[titleColumn.value] ?? "") || item.item_id;

/** Items for the search box. */
export async function search(query, abort) {
  const { items } = await ask("v1/catalog/items", { params: { model: model.value, query, limit: 8 }, abort });
  return items.map((item) => ({ id: item.item_id, title: titleOf(item) }));
}

/** Add to the history; an item that is there already moves to the end. */
export function had(items) {
  const fresh = new Set(items.map((item) => item.id));
  history.value = [...history.value.filter((item) => !fresh.has(item.id)), ...items];
}

/** Add pasted ids. Returns those that the catalogue does not have. */
export async function paste(text) {
  const wanted = [...new Set(text.split(/[\n,\t]/).map((id) => id.trim()).filter(Boolean))];
  const known = new Map();
  for (let start = 0; start < wanted.length; start += CHUNK) {
    const params = { model: model.value, item_id: wanted.slice(start, start + CHUNK) };
    const { items } = await ask("v1/catalog/items", { params });
    for (const item of items) known.set(item.item_id, titleOf(item));
  }
  had(wanted.filter((id) => known.has(id)).map((id) => ({ id, title: known.get(id) })));
  return wanted.filter((id) => !known.has(id));
}
