// The whole page: head with model and key, then history and filters, recommendations, chat.
import { useEffect, useRef, useState } from "preact/hooks";
import { forgetKey, key, locked, useKey } from "./api.js";
import { Recommendations } from "./cards.jsx";
import { Chat } from "./chat.jsx";
import { Alert } from "./chips.jsx";
import { Filters } from "./filters.jsx";
import { History } from "./history.jsx";
import { choose, chosen, load, model, models, problem } from "./state.js";

export function App() {
  return (
    <>
      <nav class="skip" aria-label="Parts of the page">
        <a href="#search">History</a>
        <a href="#column">Filters</a>
        <a href="#recommendations">Recommendations</a>
        <a href="#message">Chat</a>
      </nav>
      <header>
        <h1>genrec</h1>
        <Model />
        {key.value && !locked.value && (
          <button type="button" class="quiet" onClick={forgetKey}>
            Forget the API key
          </button>
        )}
      </header>
      <main>
        {locked.value ? <KeyForm /> : problem.value && <Alert>{problem.value} <button type="button" class="quiet" onClick={load}>Try again</button></Alert>}
        {model.value && !locked.value && (
          <div class="columns">
            <div class="side">
              <History />
              <Filters />
            </div>
            <Recommendations />
            <Chat />
          </div>
        )}
      </main>
    </>
  );
}

function Model() {
  if (!chosen.value) return null;
  const items = chosen.value.catalogue.items;
  return (
    <p class="model">
      {models.value.length > 1 ? (
        <label>
          Model{" "}
          <select value={model.value} onChange={(event) => choose(event.target.value)}>
            {models.value.map((one) => (
              <option key={one.name}>{one.name}</option>
            ))}
          </select>
        </label>
      ) : (
        <strong>{model.value}</strong>
      )}{" "}
      <span class="hint">{items.toLocaleString("en")} items</span>
    </p>
  );
}

function KeyForm() {
  const [text, setText] = useState("");
  const box = useRef(null);
  useEffect(() => box.current.focus(), []);
  const enter = (event) => {
    event.preventDefault();
    const typed = text.trim();
    if (/^[\x21-\x7e]+$/.test(typed)) useKey(typed);
    else locked.value = "An API key has letters, digits and signs only, such as gr-…";
  };
  return (
    <form class="panel key" onSubmit={enter}>
      <Alert>{locked.value}</Alert>
      <label for="key">API key</label>
      <div class="row">
        <input id="key" type="password" autocomplete="off" ref={box} value={text} onInput={(event) => setText(event.target.value)} />
        <button type="submit">Use this key</button>
      </div>
      <p class="hint">It stays in this tab and is sent to this server only.</p>
    </form>
  );
}
