// The history: items found by their titles, pasted ids, and what is in it.
import { useEffect, useRef, useState } from "preact/hooks";
import { Alert, Chips } from "./chips.jsx";
import { had, history, paste, search } from "./state.js";

const PAUSE = 200; // ms after the last letter

export function History() {
  return (
    <section aria-labelledby="history-title" class="panel">
      <h2 id="history-title">History</h2>
      <p class="hint">What somebody had, oldest first. Empty: a new customer.</p>
      <Chips
        ordered
        items={history.value.map((item) => item.title)}
        label="Items of the history"
        fallback="search"
        onRemove={(place) => (history.value = history.value.filter((_, other) => other !== place))}
      />
      {history.value.length > 1 && (
        <button type="button" class="quiet" onClick={() => { history.value = []; document.getElementById("search").focus(); }}>
          Clear the history
        </button>
      )}
      <Search />
      <Paste />
    </section>
  );
}

function Search() {
  const [words, setWords] = useState("");
  const [items, setItems] = useState(null);
  const [error, setError] = useState("");
  const box = useRef(null);
  useEffect(() => {
    setError("");
    if (!words.trim()) return setItems(null);
    const abort = new AbortController();
    const timer = setTimeout(async () => {
      try {
        setItems(await search(words, abort.signal));
      } catch (problem) {
        if (problem.name !== "AbortError") setError(problem.message);
      }
    }, PAUSE);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [words]);
  const add = (item) => {
    had([item]);
    setWords("");
    box.current.focus();
  };
  return (
    <form role="search" onSubmit={(event) => { event.preventDefault(); if (items?.length) add(items[0]); }}>
      <label for="search">Find items by title</label>
      <input id="search" type="search" autocomplete="off" maxLength={200} ref={box} value={words} onInput={(event) => setWords(event.target.value)} />
      <p class="hint" role="status">
        {items && (items.length ? `${items.length} found. Enter adds the first.` : "No title has these words.")}
      </p>
      {error && <Alert>{error}</Alert>}
      {items?.length > 0 && (
        <ul class="found" aria-label="Items found">
          {items.map((item) => (
            <li key={item.id}>
              <button type="button" onClick={() => add(item)}>
                <span class="sr">Add </span>
                {item.title}
              </button>
            </li>
          ))}
        </ul>
      )}
    </form>
  );
}

function Paste() {
  const [text, setText] = useState("");
  const [told, setTold] = useState("");
  const add = async (event) => {
    event.preventDefault();
    if (!text.trim()) return;
    try {
      const unknown = await paste(text);
      setText(unknown.join("\n"));
      setTold(unknown.length ? `Not in the catalogue, so not added: ${unknown.slice(0, 5).join(", ")}${unknown.length > 5 ? ` and ${unknown.length - 5} more` : ""}.` : "");
    } catch (problem) {
      setTold(problem.message);
    }
  };
  return (
    <details>
      <summary>Paste item ids</summary>
      <form onSubmit={add}>
        <label for="paste">Ids, one a line or between commas</label>
        <textarea id="paste" rows={3} spellcheck={false} value={text} onInput={(event) => setText(event.target.value)} />
        <button type="submit">Add these</button>
        {told && <Alert>{told}</Alert>}
      </form>
    </details>
  );
}
