"""A leaderboard: one file that every later evaluation adds its lines to, and one table of it.

In: an `Evaluation`. Out: a JSON Lines file, one line per ranker and run. Lines are only ever added, so nothing that was
measured is lost; the table shows the latest line of each ranker, and keeps apart what was asked different questions.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from genrec.errors import DataError
from genrec.evaluation.evaluate import markdown_table
from genrec.evaluation.saved import Evaluation

SHOWN = ("recall@10", "ndcg@10")


def add_to_leaderboard(path: Path, evaluation: Evaluation, name: str) -> None:
    """Add a line per result. name: of the run, such as the bundle's folder; the model is listed under it.

    Raises `DataError` where the file holds something else: it is left as it is.
    """
    if path.exists():
        read_leaderboard(path)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    lines = []
    for place, result in enumerate(evaluation.results):
        entry = {
            "name": result.name if place else name,
            "time": now,
            "questions": evaluation.questions,
            "asked": result.questions,
        }
        entry |= {"about": evaluation.about, "metrics": result.to_dict()["metrics"], "seconds": result.seconds}
        lines.append(json.dumps(entry) + "\n")
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(lines))


def read_leaderboard(path: Path) -> list[dict[str, Any]]:
    """All lines, oldest first. Raises `DataError` naming a line that is none."""
    entries = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The leaderboard {path} cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            entry["name"], entry["questions"], entry["metrics"]
        except (ValueError, KeyError, TypeError):
            raise DataError(
                f"Line {number} of {path} is not a leaderboard's. Choose another file, or mend that line."
            ) from None
        entries.append(entry)
    return entries


def leaderboard_table(entries: list[dict[str, Any]], protocol: str = "masked", sort_by: str = "ndcg@10") -> str:
    """Markdown: a table per set of questions, best first, with the latest line of each name."""
    tables = []
    for questions in dict.fromkeys(entry["questions"] for entry in entries):
        latest = {e["name"]: e for e in entries if e["questions"] == questions and protocol in e["metrics"]}
        ranked = sorted(latest.values(), key=lambda e: -e["metrics"][protocol][sort_by]["mean"])
        rows = [
            [
                entry["name"], *(f"{entry['metrics'][protocol][metric]['mean']:.4f}" for metric in SHOWN),
                "{low:.4f} to {high:.4f}".format(**entry["metrics"][protocol][sort_by]),
                f"{1000 * entry['seconds'][protocol] / entry['asked']:.2f}", entry["time"][:10],
            ]
            for entry in ranked
        ]  # fmt: skip
        header = ["model", *SHOWN, f"95 % of {sort_by}", "ms", "day"]
        tables.append(
            f"Questions {questions[:12]}, {ranked[0]['asked'] if ranked else 0}, {protocol}\n\n{markdown_table(header, rows)}"
        )
    return "\n\n".join(tables)
