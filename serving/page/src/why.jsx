// Why an item is here, as the API explains it: the probability of each code, and how each item of the history moved the score.

import { Facts } from "./facts.jsx";

const percent = (share) => (share >= 0.1 ? `${Math.round(100 * share)} %` : share >= 0.0005 ? `${(100 * share).toFixed(1)} %` : "< 0.1 %");
const signed = (change) => `${change > 0 ? "+" : "−"}${Math.abs(change).toFixed(2)}`;

/** One line: the item of the history that raised the score most. */
export function Because({ explanation }) {
  const [best] = [...(explanation?.history ?? [])].sort((a, b) => b.change - a.change);
  if (!best || best.change <= 0) return null;
  return (
    <p class="because">
      Goes with <strong>{best.title || best.item_id}</strong>
    </p>
  );
}

export function Why({ item }) {
  const { levels = [], history = [] } = item.explanation ?? {};
  return (
    <details class="why">
      <summary>
        Why<span class="sr"> number {item.rank}</span>
      </summary>
      <p>
        The model gives it a probability of {percent(Math.exp(item.explanation?.score ?? item.score))} (score {item.score.toFixed(2)}).
      </p>
      {levels.length > 0 && <Levels levels={levels} />}
      {history.length > 0 && <Influences history={history} />}
      <Facts fields={item.fields} rest />
      <p class="hint">Id {item.item_id}</p>
    </details>
  );
}

function Levels({ levels }) {
  return (
    <div class="scroll" tabIndex={0} role="group" aria-label="Codes of the item">
      <table>
        <caption>Code by code, coarse to fine; the probabilities multiply to that of the item.</caption>
        <thead>
          <tr>
            <th scope="col">Code</th>
            <th scope="col">Probability</th>
            <th scope="col">Items</th>
            <th scope="col">About</th>
          </tr>
        </thead>
        <tbody>
          {levels.map((level) => (
            <tr key={level.name}>
              <th scope="row">{level.name}</th>
              <td>
                <meter min={0} max={1} value={level.probability} aria-hidden="true" /> {percent(level.probability)}
              </td>
              <td>{level.items}</td>
              <td>{level.words.slice(0, 4).join(", ")}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Influences({ history }) {
  return (
    <>
      <p>Each item of the history, and the change of the score by it:</p>
      <ul class="influences">
        {history.slice(0, 5).map((one) => (
          <li key={one.item_id}>
            <span class={one.change > 0 ? "for" : "against"}>{signed(one.change)}</span> {one.title || one.item_id}
          </li>
        ))}
      </ul>
    </>
  );
}
