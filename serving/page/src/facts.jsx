// What the catalogue says of an item, column by column, always as text.
import { columns, titleColumn } from "./state.js";

const MOST_FACTS = 6;
const LONGEST = 300; // characters of a value

/** What the catalogue says: the columns that rules can be about, or the rest of them. */
export function Facts({ fields, rest = false }) {
  const ruled = columns.value.map((column) => column.name);
  const names = rest ? Object.keys(fields).filter((name) => !ruled.includes(name)) : ruled;
  const shown = names.filter((name) => name !== titleColumn.value && text(fields[name]));
  if (!shown.length) return null;
  return (
    <dl class="facts">
      {shown.slice(0, MOST_FACTS).map((name) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{text(fields[name])}</dd>
        </div>
      ))}
    </dl>
  );
}

function text(value) {
  if (value === null || value === undefined) return "";
  const words = Array.isArray(value) ? value.join(", ") : typeof value === "object" ? JSON.stringify(value) : String(value);
  return words.length > LONGEST ? `${words.slice(0, LONGEST - 1)}…` : words;
}
