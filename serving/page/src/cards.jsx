// Recommended items as cards: what the catalogue says of them, and why they are here.
import { Alert } from "./chips.jsx";
import { Facts } from "./facts.jsx";
import { again, chosen, found, had, history, k, titleColumn } from "./state.js";
import { Because, Why } from "./why.jsx";

const SIZES = [5, 10, 20];

export function Recommendations() {
  const { items, busy, error } = found.value;
  const widest = Math.min(...[chosen.value?.beam_width ?? 20].flat());
  return (
    <section aria-labelledby="recommendations-title" id="recommendations" tabIndex={-1}>
      <div class="head">
        <h2 id="recommendations-title">Recommendations</h2>
        <label>
          How many{" "}
          <select value={k.value} onChange={(event) => (k.value = Number(event.target.value))}>
            {SIZES.filter((size) => size <= widest || size === SIZES[0]).map((size) => (
              <option key={size}>{size}</option>
            ))}
          </select>
        </label>
      </div>
      <p class="hint" role="status">
        {busy ? "Searching …" : items && told(items.length)}
      </p>
      {error && (
        <Alert>
          {error}{" "}
          <button type="button" class="quiet" onClick={() => (again.value += 1)}>
            Try again
          </button>
        </Alert>
      )}
      <ol class="cards" aria-label="Recommended items" aria-busy={busy}>
        {(items ?? []).map((item) => (
          <Card key={item.item_id} item={item} />
        ))}
      </ol>
    </section>
  );
}

function told(count) {
  const after = history.value.length;
  const basis = after ? `after ${after} ${after === 1 ? "item" : "items"}` : "for a new customer";
  if (!count) return "No item obeys all filters. Remove one.";
  return `${count} ${count === 1 ? "item" : "items"} ${basis}, best first.`;
}

function Card({ item }) {
  const title = String(item.fields[titleColumn.value] ?? "") || item.item_id;
  const in_history = history.value.some((one) => one.id === item.item_id);
  return (
    <li class="card" data-item={item.item_id}>
      <h3>
        <span class="rank" aria-label={`Rank ${item.rank}`}>
          {item.rank}
        </span>
        <span>{title}</span>
      </h3>
      <Facts fields={item.fields} />
      <Because explanation={item.explanation} />
      <div class="actions">
        <Why item={item} />
        <button type="button" class="quiet" disabled={in_history} onClick={() => had([{ id: item.item_id, title }])}>
          Had it<span class="sr">: {title}</span>
        </button>
      </div>
    </li>
  );
}
