"""Words as conversation compares and prints them.

In: what a person or a catalogue wrote. Out: a key under which spellings meet, and text that is safe to print.

`key` ignores case, accents, punctuation, plural endings and where an article stands: "Lion King, The" and "the lion king"
have one key. `printable` takes out what can steer a terminal or hide text: control characters, escape sequences, reversed
writing.
"""

import re
import unicodedata
from functools import lru_cache

MOST_LINES, LONGEST_LINE = 20, 500  # of a model's own words
LONGEST_SHOWN = 120  # characters of a title or of quoted words in an answer

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])|\x9b[0-?]*[ -/]*[@-~]")
_LISTED = re.compile(
    r"^\s*(?:[(\[]?\d{1,3}\s*[.):\]]|\d{1,3}\s*[-–—]\s|\d\ufe0f?\u20e3|[(\[]?(?:[a-z]|[ivx]{2,4})[.)\]]\s"
    r"|(?:item|option|product|no|nr)\.?\s*\d{1,3}\s*[.):–—-]|[-*+•‣⁃·∙▪●○◦■□►▶→✓✔★☆–—|#>]|\*\*\d)",
    re.I,
)
_CIRCLED = re.compile(r"^\s*[\u2460-\u24ff\u2776-\u2793]")  # one sign for a number and its circle
_ARTICLES = r"the|a|an"
_MOVED_ARTICLE = re.compile(rf"^(.*),\s*({_ARTICLES})$", re.I)
_FIRST_ARTICLE = re.compile(rf"^(?:{_ARTICLES})\s+(?=\S)")


def printable(text: object, most: int = LONGEST_SHOWN) -> str:
    """One line of at most `most` characters, without control characters, escape sequences or invisible formatting."""
    line = _ESCAPES.sub("", str(text))
    # Cc: controls; Cf: invisible formatting such as reversed writing; Cs: half characters; Co, Cn: no characters at all.
    line = "".join(" " if c in "\t\n\r" else c for c in line if c in "\t\n\r" or unicodedata.category(c)[0] != "C")
    line = re.sub(r"\s+", " ", line).strip()
    return line if len(line) <= most else line[: most - 1] + "…"


def unlisted(prose: str) -> str:
    """The model's words without lines that look like items of a list: those are written from the catalogue alone."""
    # What is printed is what is looked at: an invisible character must not hide a number.
    lines = [line for line in (printable(line, LONGEST_LINE) for line in prose.splitlines()) if line and not _listed(line)]
    return "\n".join(lines[:MOST_LINES])


def _listed(line: str) -> bool:
    return bool(_CIRCLED.match(line) or _LISTED.match(unicodedata.normalize("NFKC", line)))


def straight(text: str) -> str:
    """`text` with typewriter quotes and dashes, and no control characters but spaces."""
    text = unicodedata.normalize("NFC", text).translate(_STRAIGHT)
    return "".join(c if unicodedata.category(c)[0] != "C" else " " for c in text)


_STRAIGHT = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "«": '"', "»": '"', "–": "-", "—": "-", "\u00a0": " "})


@lru_cache(maxsize=4096)  # a message is looked at word group by word group, by several passes
def key(text: str, singular: bool = True) -> str:
    """What two spellings of the same words have in common: lower case, no accents, no punctuation, singular (unless told not
    to), no article."""
    match = _MOVED_ARTICLE.match(text.strip())
    text = f"{match[2]} {match[1]}" if match else text
    text = unicodedata.normalize("NFKD", text).casefold().replace("&", " and ").replace("'", "")
    text = "".join(c for c in text if not unicodedata.combining(c))
    words = re.findall(r"[^\W_]+", text)
    words = _FIRST_ARTICLE.sub("", " ".join(words)).split()
    return " ".join(map(_singular, words) if singular else words)


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word
