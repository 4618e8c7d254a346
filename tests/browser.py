"""A real browser for the pages that genrec writes: Chromium without a window, driven by its command line alone.

In: a page on disk. Out: what the browser says of it after layout, as a `Look`. No name can be resolved, so nothing can be
loaded from elsewhere. A script is put into a copy of the page, which measures and writes its findings into the document;
`--dump-dom` prints that.
"""

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip
NARROW, WIDE = 400, 1100  # CSS pixels: a telephone and a desk
# Opacity thins a text out towards what is behind it, so it counts as a mixture of both colours.
MEASURE = """
<script>
addEventListener("load", () => {
  const numbers = text => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const canvas = document.body.appendChild(document.createElement("div"));
  canvas.style.background = "Canvas";
  const page = numbers(getComputedStyle(canvas).backgroundColor);
  canvas.remove();
  const light = rgb => {
    const [r, g, b] = rgb.map(x => (x /= 255) <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = element => {
    let [r, g, b, alpha = 1] = numbers(getComputedStyle(element).color);
    for (let e = element; e; e = e.parentElement) alpha *= getComputedStyle(e).opacity;
    const ink = light([r, g, b].map((x, i) => alpha * x + (1 - alpha) * page[i])), paper = light(page.slice(0, 3));
    return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
  };
  const words = [...document.querySelectorAll("body *")].filter(
    e => [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim()) && !["SCRIPT", "STYLE"].includes(e.tagName));
  const faintest = words.map(e => [contrast(e), e.textContent.trim().slice(0, 60)]).sort((a, b) => a[0] - b[0])[0];
  const found = {
    width: innerWidth,
    overflow: document.documentElement.scrollWidth - innerWidth,
    dark: light(page.slice(0, 3)) < 0.2,
    requests: performance.getEntriesByType("resource").map(e => e.name),
    rows: [...document.querySelectorAll("table")].map(t => t.tBodies[0].rows.length),
    plots: [...document.querySelectorAll("svg, img")].map(e => e.tagName == "IMG" ? e.naturalWidth * e.naturalHeight
      : e.querySelectorAll("path, use").length * (e.getBoundingClientRect().width > 100) * (e.getBBox().height > 50)),
    contrast: faintest[0], faintest: faintest[1],
  };
  const told = document.body.appendChild(document.createElement("pre"));
  told.id = "look";
  told.textContent = JSON.stringify(found);
});
</script>
"""
# A window cannot be made as narrow as a telephone, but a frame can.
FRAME = """
<iframe id="frame" width="{width}" height="900" style="border: 0" srcdoc="{text}"></iframe>
<script>
addEventListener("load", () => document.body.append(frame.contentDocument.getElementById("look")));
</script>
"""


@dataclass(frozen=True)
class Look:
    """width: of the window, CSS pixels. overflow: pixels that the page is wider. dark: whether the paper is. requests: what it
    tried to load. rows: of each table's body. plots: things drawn in each, 0 for one that is not to be seen. contrast: the
    lowest of a text with what is behind it (WCAG's ratio, 1 to 21), and which text, `faintest`.
    """

    width: int
    overflow: int
    dark: bool
    requests: list[str]
    rows: list[int]
    plots: list[int]
    contrast: float
    faintest: str


def browser() -> str:
    """The program; without one the test is skipped."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no browser is installed: none of {', '.join(NAMES)} is on the PATH. apt-get install chromium")
    return found


def look(page: Path, folder: Path, width: int, dark: bool = False) -> Look:
    """What a browser sees of `page` in a window of `width` pixels. folder: for the copy and the browser's profile."""
    text = page.read_text(encoding="utf-8").replace("</body>", MEASURE + "</body>")
    assert MEASURE in text
    framed = folder / f"{page.stem}.{width}.html"
    framed.write_text(FRAME.format(width=width, text=html.escape(text)), encoding="utf-8")
    printed = _run(folder, dark, "--virtual-time-budget=5000", "--dump-dom", framed.as_uri())
    told = re.search(r'<pre id="look">(.*?)</pre>', printed, re.DOTALL)
    assert told, f"the script in {page.name} did not run: {printed[-2000:]}"
    return Look(**json.loads(html.unescape(told[1])))


def screenshot(page: Path, picture: Path, folder: Path, dark: bool = False) -> None:
    """A picture (PNG) of the top of `page`."""
    _run(folder, dark, f"--window-size={WIDE},1600", f"--screenshot={picture}", page.as_uri())


def _run(folder: Path, dark: bool, *arguments: str) -> str:
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    command = [browser(), *OPTIONS, scheme, f"--user-data-dir={folder / 'profile'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
