// The chat: what was said, the rules in force, and the box to type into.
import { useEffect, useRef, useState } from "preact/hooks";
import { Alert, Chips } from "./chips.jsx";
import { Facts } from "./facts.jsx";
import { had, history } from "./state.js";
import { busy, failed, rules, send, startOver, turns } from "./talk.js";

const PLACES = ["the first", "the second", "the third", "the fourth"];
const LONGEST = 1000; // characters of a message, as the server reads them

export function Chat() {
  const [text, setText] = useState("");
  const log = useRef(null);
  const box = useRef(null);
  useEffect(() => {
    // From the last message on: the cards of its answer may be longer than the window.
    const last = [...log.current.querySelectorAll("li.turn.user")].at(-1);
    if (last) log.current.scrollTop = last.offsetTop;
  }, [turns.value]);
  const say = async (message) => {
    if (!message.trim() || busy.value) return;
    setText("");
    box.current.focus();
    if (!(await send(message.trim()))) setText((now) => now || message);
  };
  return (
    <section aria-labelledby="chat-title" id="chat" class="panel chat" tabIndex={-1}>
      <div class="head">
        <h2 id="chat-title">Chat</h2>
        {turns.value.length > 0 && (
          <button type="button" class="quiet" onClick={() => { startOver(); box.current.focus(); }}>
            Start over
          </button>
        )}
      </div>
      <div class="log" role="log" aria-label="Conversation" tabIndex={0} ref={log}>
        {turns.value.length === 0 && <p class="hint">Say what you liked, or what it must be: “I loved …, under $20, not by …”</p>}
        <ol>
          {turns.value.map((turn, number) => (
            <li class={`turn ${turn.role}`} key={number}>
              {turn.role === "user" ? <p class="bubble"><span class="sr">You: </span>{turn.text}</p> : <Answer turn={turn} say={say} last={number === turns.value.length - 1} />}
            </li>
          ))}
        </ol>
      </div>
      {rules.value.length > 0 && (
        <div class="rules">
          <h3>Rules in force</h3>
          <Chips ordered items={rules.value} label="Rules in force" fallback="message" onRemove={(place) => say(`forget rule ${place + 1}`)} />
        </div>
      )}
      {failed.value && <Alert>{failed.value}</Alert>}
      <form class="say" onSubmit={(event) => { event.preventDefault(); say(text); }}>
        <label for="message">Message</label>
        <div class="row">
          <input id="message" autocomplete="off" maxLength={LONGEST} ref={box} value={text} onInput={(event) => setText(event.target.value)} />
          <button type="submit" disabled={busy.value}>{busy.value ? "…" : "Send"}</button>
        </div>
      </form>
    </section>
  );
}

function Answer({ turn, say, last }) {
  const lines = turn.said.split("\n").filter(Boolean);
  return (
    <>
      <span class="sr">Answer: </span>
      {lines.map((line, place) => (
        <p key={place} class={turn.missed.length && line.startsWith("I did not understand") ? "missed" : undefined}>{line}</p>
      ))}
      {last && turn.question.length > 0 && (
        <p class="row wrap">
          {turn.question.map((one, place) => (
            <button type="button" class="quiet" key={one.item_id} onClick={() => say(PLACES[place])}>{one.title}</button>
          ))}
        </p>
      )}
      {turn.items.length > 0 && (
        <ol class="offers">
          {turn.items.map((item) => (
            <Offer key={item.item_id} item={item} />
          ))}
        </ol>
      )}
    </>
  );
}

function Offer({ item }) {
  const in_history = history.value.some((one) => one.id === item.item_id);
  return (
    <li class="card" data-item={item.item_id}>
      <h4><span class="rank" aria-label={`Number ${item.rank}`}>{item.rank}</span><span>{item.title}</span></h4>
      {item.reasons.length > 0 && (
        <ul class="reasons" aria-label="Why">
          {item.reasons.map((reason) => (
            <li key={reason}>{reason}</li>
          ))}
        </ul>
      )}
      <div class="actions">
        <details class="why">
          <summary>More<span class="sr"> about {item.title}</span></summary>
          <Facts fields={item.fields} />
          <Facts fields={item.fields} rest />
          <p class="hint">Id {item.item_id}, score {item.score.toFixed(2)}</p>
        </details>
        <button type="button" class="quiet" disabled={in_history} onClick={() => had([{ id: item.item_id, title: item.title }])}>
          Had it<span class="sr">: {item.title}</span>
        </button>
      </div>
    </li>
  );
}
