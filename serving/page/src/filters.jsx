// Filters: by the columns that the API tells, by the server's prepared filters, or by a rule written by hand.
import { useState } from "preact/hooks";
import { Chips } from "./chips.jsx";
import { chosen, columns, filters, own, prepared } from "./state.js";
import { wordsOf } from "./where.js";

export function Filters() {
  return (
    <section aria-labelledby="filters-title" class="panel">
      <h2 id="filters-title">Filters</h2>
      <p class="hint">Nothing else is recommended, in the chat neither.</p>
      <Chips
        items={filters.value.map(wordsOf)}
        label="Filters set"
        fallback="column"
        onRemove={(place) => (filters.value = filters.value.filter((_, other) => other !== place))}
      />
      <AddFilter />
      <PreparedFilters />
      <OwnRule />
    </section>
  );
}

function AddFilter() {
  const [name, setName] = useState("");
  const [value, setValue] = useState("");
  const [not, setNot] = useState(false);
  const [low, setLow] = useState("");
  const [high, setHigh] = useState("");
  const [wrong, setWrong] = useState("");
  const column = columns.value.find((one) => one.name === name) ?? columns.value[0];
  if (!column) return <p class="hint">No column of this catalogue can be filtered by.</p>;
  const add = (event) => {
    event.preventDefault();
    const filter = column.kind === "values" ? ofValue(column, value, not) : ofRange(column, low, high);
    setWrong(filter.wrong ?? "");
    if (filter.wrong) return;
    const same = filters.value.some((one) => wordsOf(one) === wordsOf(filter));
    if (!same) filters.value = [...filters.value, filter];
    setValue("");
    setLow("");
    setHigh("");
  };
  const choose = (event) => {
    setName(event.target.value);
    setValue("");
    setLow("");
    setHigh("");
    setWrong("");
  };
  return (
    <form class="filter" onSubmit={add} noValidate>
      <label for="column">Column</label>
      <select id="column" value={column.name} onChange={choose}>
        {columns.value.map((one) => (
          <option key={one.name}>{one.name}</option>
        ))}
      </select>
      {column.kind === "values" ? (
        <>
          <label for="value">Value</label>
          <div class="row">
            <select aria-label="Is or is not" value={not ? "not" : "is"} onChange={(event) => setNot(event.target.value === "not")}>
              <option value="is">is</option>
              <option value="not">is not</option>
            </select>
            <input
              id="value" list="values" autocomplete="off" value={value} onInput={(event) => setValue(event.target.value)}
              aria-invalid={wrong ? "true" : "false"} aria-describedby="filter-wrong"
            />
            <datalist id="values">
              {column.values.map((one) => (
                <option key={one.value} value={one.value} label={one.items === null ? undefined : `${one.items} items`} />
              ))}
            </datalist>
          </div>
        </>
      ) : (
        <Range column={column} low={low} high={high} setLow={setLow} setHigh={setHigh} wrong={wrong} />
      )}
      <p id="filter-wrong" class="wrong" role="status">
        {wrong}
      </p>
      <button type="submit">Add filter</button>
    </form>
  );
}

function Range({ column, low, high, setLow, setHigh, wrong }) {
  const kind = column.kind === "date" ? { type: "date" } : { type: "number", step: "any" };
  const told = { "aria-invalid": wrong ? "true" : "false", "aria-describedby": "filter-wrong" };
  return (
    <div class="row">
      <div>
        <label for="low">From</label>
        <input id="low" {...kind} {...told} placeholder={column.low ?? ""} value={low} onInput={(event) => setLow(event.target.value)} />
      </div>
      <div>
        <label for="high">Up to</label>
        <input id="high" {...kind} {...told} placeholder={column.high ?? ""} value={high} onInput={(event) => setHigh(event.target.value)} />
      </div>
    </div>
  );
}

/** The value as the catalogue spells it; said to be wrong where the list is whole and does not have it. */
function ofValue(column, text, not) {
  const typed = text.trim();
  if (!typed) return { wrong: `Choose or type a value of ${column.name}.` };
  const same = (one) => one.value === typed || one.value.toLowerCase() === typed.toLowerCase();
  const value = column.values.find((one) => one.value === typed)?.value ?? column.values.find(same)?.value;
  if (value === undefined && column.different <= column.values.length) return { wrong: `No item has ${column.name} “${typed}”.` };
  return { column: column.name, kind: "values", value: value ?? typed, not, many: column.many };
}

function ofRange(column, low, high) {
  if (low === "" && high === "") return { wrong: `Give the lowest or the highest ${column.name}, or both.` };
  const above = column.kind === "date" ? low > high : Number(low) > Number(high);
  if (low !== "" && high !== "" && above) return { wrong: "The lowest is above the highest." };
  return { column: column.name, kind: column.kind, low, high };
}

function PreparedFilters() {
  const names = chosen.value?.filters ?? [];
  if (!names.length) return null;
  const toggle = (name, on) => (prepared.value = on ? [...prepared.value, name] : prepared.value.filter((one) => one !== name));
  return (
    <fieldset>
      <legend>Prepared filters</legend>
      {names.map((name) => (
        <label class="check" key={name}>
          <input type="checkbox" checked={prepared.value.includes(name)} onChange={(event) => toggle(name, event.target.checked)} />
          {name}
        </label>
      ))}
    </fieldset>
  );
}

function OwnRule() {
  const [text, setText] = useState("");
  const set = (event) => {
    event.preventDefault();
    own.value = text.trim();
  };
  return (
    <details>
      <summary>Write a rule</summary>
      <form onSubmit={set}>
        <label for="own">Such as price &lt; 20 and brand != "Acme"</label>
        <input id="own" autocomplete="off" spellcheck={false} value={text} onInput={(event) => setText(event.target.value)} />
        <button type="submit">Use this rule</button>
      </form>
      {own.value && <Chips items={[own.value]} label="Rule in use" fallback="own" onRemove={() => { own.value = ""; setText(""); }} />}
    </details>
  );
}
