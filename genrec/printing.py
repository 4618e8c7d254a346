"""What the command line prints for people: recommendations, and how two code tables differ."""

from typing import Any

from genrec.codes import CodeDiff, CodeTable

NOTHING = "Nothing is allowed: no recommendations."


def print_recommendations(table: Any) -> None:
    """One line per row of an Arrow table of recommendations: rank, score, id and the first words that describe the item."""
    user = None
    for row in table.to_pylist():
        if row["user_id"] != user:
            user = row["user_id"]
            print(f"user {user}")
        words = " | ".join(str(v) for name, v in row.items() if isinstance(v, str) and name not in ("user_id", "item_id") and v)
        print(f"{row['rank']:>4}  {row['score']:8.3f}  {row['item_id']:<16}  {words[:90]}")
    if not table.num_rows:
        print(NOTHING)


def print_diff(old: CodeTable, new: CodeTable, found: CodeDiff) -> None:
    """How many items have other codes in the second table than in the first."""
    made = "by the same tokenizer" if old.tokenizer == new.tokenizer else "by another tokenizer"
    print(f"generation {old.generation} -> {new.generation}, {made}")
    print(f"{found.unchanged} items keep their codes, {found.changed} have others, ", end="")
    print(f"{found.added} are new, {found.removed} gone")
    if found.together is not None:
        print(f"{found.together:.1%} of the pairs of items that shared their first code still share one")
