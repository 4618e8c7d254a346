// A list of short texts that can be removed one by one; the keyboard's place is kept where the removed one was.
import { useRef } from "preact/hooks";

/** items: texts. onRemove: gets the place. label: of the list. fallback: id of the element that gets the focus when none is left. */
export function Chips({ items, onRemove, label, fallback, ordered }) {
  const list = useRef(null);
  const remove = (place) => {
    onRemove(place);
    setTimeout(() => {
      if (document.activeElement !== document.body) return; // the place was kept, or somebody has moved on
      const buttons = list.current?.querySelectorAll("button") ?? [];
      (buttons[Math.min(place, buttons.length - 1)] ?? document.getElementById(fallback))?.focus();
    });
  };
  if (!items.length) return null;
  const before = (text, place) => items.slice(0, place).filter((one) => one === text).length; // titles may be alike
  const List = ordered ? "ol" : "ul";
  return (
    <List class="chips" aria-label={label} ref={list}>
      {items.map((text, place) => (
        <li class="chip" key={`${before(text, place)} ${text}`}>
          <span>{text}</span>
          <button type="button" aria-label={`Remove ${text}`} title="Remove" onClick={() => remove(place)}>
            ×
          </button>
        </li>
      ))}
    </List>
  );
}

/** An error as soon as it is there, read out at once. */
export const Alert = ({ children }) => (
  <div class="alert" role="alert">
    {children}
  </div>
);
