// The page of `genrec serve`. It only asks the public API. All texts of the catalogue and of people are shown as text.
import { render } from "preact";
import { App } from "./app.jsx";
import { start } from "./state.js";
import "./page.css";

const root = document.getElementById("page");
root.replaceChildren();
render(<App />, root);
start();
