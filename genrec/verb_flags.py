"""Which flags each verb of the command line takes.

In: a verb's parser. Out: the same with its flags and their help. The flags of the recipe are the settings themselves.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

# Verbs that take settings of the recipe as flags, and which.
SECTIONS: dict[str, tuple[str, ...]] = {"fit": ("",), "preview": ("",), "tokenize": ("seed", "data.", "text.", "tokenizer.")}


def tables(verb: argparse.ArgumentParser, interactions: bool = True) -> None:
    formats = "parquet, csv, tsv, jsonl, RecBole .item/.inter, a saved Hugging Face dataset, or hf:NAME@SPLIT"
    verb.add_argument("--items", required=True, metavar="TABLE", help=f"the catalogue, one row per item: {formats}")
    verb.add_argument("--interactions", required=interactions, metavar="TABLE", help="who met which item when, same formats")
    mapping = "map a column, such as user_id=reviewerID or item_id=asin (both tables; repeat the flag)"
    verb.add_argument("--columns", action="append", default=[], metavar="NAME=YOURS", help=mapping)


def fit(verb: argparse.ArgumentParser) -> None:
    tables(verb)
    verb.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="where the bundle goes")
    verb.add_argument("--recipe", type=Path, metavar="YAML", help="settings; see training/recipes/")
    verb.add_argument("--overwrite", action="store_true", help="start anew in a folder that holds a bundle or another fit")
    verb.add_argument("--codes", type=Path, metavar="FOLDER", help="train on codes that `genrec tokenize` published")


def preview(verb: argparse.ArgumentParser) -> None:
    tables(verb)
    verb.add_argument("--recipe", type=Path, metavar="YAML", help="settings; see training/recipes/")
    verb.add_argument(
        "--codes", type=Path, metavar="FOLDER", help="codes that `genrec tokenize` published (default: make them)"
    )
    verb.add_argument("--samples", type=int, default=2, metavar="N", help="of each task (default: %(default)s)")


def tokenize(verb: argparse.ArgumentParser) -> None:
    tables(verb, interactions=False)
    verb.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="where codes and report go")
    verb.add_argument("--recipe", type=Path, metavar="YAML", help="settings; see tokenizers/")
    verb.add_argument("--append-to", type=Path, metavar="FOLDER", help="the next generation of these codes: none of them moves")
    verb.add_argument("--item-vectors", type=Path, metavar="FILE", help="with --append-to: vectors of the new items (Parquet)")
    verb.add_argument("--overwrite", action="store_true", help="replace the codes in --out")


def tokenizers(verb: argparse.ArgumentParser) -> None:
    actions = verb.add_subparsers(dest="action", metavar="ACTION", required=True)
    about = "One table of quality numbers for several recipes on one catalogue."
    compare = actions.add_parser("compare", help=about, description=about, allow_abbrev=False)
    compare.add_argument("recipes", nargs="+", type=Path, metavar="YAML")
    tables(compare, interactions=False)
    compare.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    about = "How many items have other codes in the second table than in the first, and which."
    diff = actions.add_parser("diff", help=about, description=about, allow_abbrev=False)
    diff.add_argument("old", type=Path, metavar="OLD", help="a folder of codes or a bundle")
    diff.add_argument("new", type=Path, metavar="NEW")
    diff.add_argument("--out", type=Path, metavar="FILE", help="write what moved, an item a line (.parquet, .csv or .jsonl)")


def adapt(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("bundle", type=Path, help="fitted on texts alone, such as with training/recipes/zero_shot.yaml")
    verb.add_argument("--items", required=True, metavar="TABLE", help="the other catalogue, same formats as in fit")
    verb.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="where the new bundle goes")
    verb.add_argument("--columns", action="append", default=[], metavar="NAME=YOURS", help="map a column of this shop's tables")
    verb.add_argument(
        "--template", metavar="TEXT", help="how an item of this shop is written, such as '{name}' (default: as in the bundle)"
    )


def evaluate(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("bundle", type=Path)
    verb.add_argument("--interactions", required=True, metavar="TABLE", help="the events to split and ask about")
    verb.add_argument("--columns", action="append", default=[], metavar="NAME=YOURS", help="map a column, as in fit")
    verb.add_argument("--part", choices=["validation", "test"], default="test")
    verb.add_argument("--beam-width", type=int, metavar="W")
    verb.add_argument("--width", type=int, metavar="W", help="of a one-pass model fitted with one_pass.widths; as it is served")
    verb.add_argument("--max-questions", type=int, default=0, metavar="N", help="draw this many questions; 0 for all")
    verb.add_argument(
        "--questions", choices=["all", "warm", "cold"], help="targets with (warm) or without (cold) training events; as in fit"
    )
    verb.add_argument("--strict", action="store_true", help="a leak between training and questions is an error, not a warning")
    verb.add_argument("--no-baselines", action="store_true", help="only the model")
    verb.add_argument(
        "--out", type=Path, metavar="FOLDER", help="write evaluation.html, evaluation.json and every question here"
    )
    verb.add_argument("--leaderboard", type=Path, metavar="FILE", help="add a line per ranker to this file (JSON Lines)")
    verb.add_argument(
        "--illegal-rate", action="store_true", help="also decode without the catalogue and say how much of it is no item"
    )
    verb.add_argument(
        "--probes", action="store_true", help="also ask what a linear model can read from the model's user vectors"
    )


def compare(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("evaluations", nargs="*", type=Path, metavar="FOLDER", help="what `genrec evaluate --out` wrote")
    verb.add_argument(
        "--pool", action="append", default=[], metavar="NAME=FOLDER,FOLDER,...",
        help="one model fitted with several seeds, listed once as NAME (repeat the flag for another model)",
    )  # fmt: skip
    verb.add_argument("--metric", default="ndcg", choices=["recall", "ndcg", "mrr"])
    verb.add_argument("-k", type=int, default=10, metavar="K")
    verb.add_argument("--protocol", default="masked", choices=["masked", "unmasked"], help="items had before: left out or not")
    verb.add_argument("--reference", metavar="NAME", help="the ranker that all others are tested against (default: the first)")
    verb.add_argument("--out", type=Path, metavar="FILE", help="also write a page (.html) with plots")
    verb.add_argument("--leaderboard", type=Path, metavar="FILE", help="print this leaderboard instead")


def recommend(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("bundle", type=Path)
    verb.add_argument(
        "--history", action="append", metavar="ID,ID,...", help="one user's items, oldest first (repeat the flag)"
    )
    verb.add_argument("--interactions", metavar="TABLE", help="recommend to every user of this event table")
    verb.add_argument("--user", action="append", metavar="ID", help="only these users of --interactions")
    verb.add_argument("--columns", action="append", default=[], metavar="NAME=YOURS", help="map a column, as in fit")
    verb.add_argument("-k", type=int, metavar="K", help="items per user")
    verb.add_argument("--beam-width", type=int, metavar="W")
    verb.add_argument("--exclude-item-ids", metavar="ID,ID,...", default="", help="never return these")
    verb.add_argument("--only-item-ids", metavar="ID,ID,...", help="return nothing else")
    verb.add_argument("--where", metavar="RULE", help="""only items that fit, such as 'price < 20 and brand != "Acme"'""")
    verb.add_argument(
        "--max-per", action="append", default=[], metavar="COLUMN=N", help="at most N items of one value (repeat the flag)"
    )
    verb.add_argument("--explain", action="store_true", help="say why, for every item of every --history")
    seen = verb.add_mutually_exclusive_group()
    seen.add_argument("--exclude-seen", action="store_const", const=True, dest="exclude_seen", help="leave out what a user had")
    seen.add_argument("--include-seen", action="store_const", const=False, dest="exclude_seen")
    verb.add_argument("--unsupported", choices=["raise", "warn", "ignore"], default="raise", help="ids not in the catalogue")
    verb.add_argument("--out", type=Path, metavar="FILE", help="write a table (.parquet, .csv or .jsonl) instead of printing")


def serve(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("bundles", nargs="+", metavar="BUNDLE | NAME=BUNDLE", help="folders; the name is the folder's by default")
    verb.add_argument("--host", default="127.0.0.1", help="anything but loopback needs --keys (default: %(default)s)")
    verb.add_argument("--port", type=int, default=8000)
    verb.add_argument("--keys", type=Path, metavar="FILE", help="API keys, made by `genrec keys add`")
    verb.add_argument("--allow-host", action="append", default=[], metavar="NAME", help="answer to this name without keys, too")
    store = os.environ.get("GENREC_STORE", "sqlite:///serving.db")
    verb.add_argument("--store", default=store, metavar="URL", help="database (default: $GENREC_STORE, else ./serving.db)")
    verb.add_argument("--engine", choices=["torch", "vllm"], default="torch", help="who searches (default: %(default)s)")
    verb.add_argument("--filter", action="append", default=[], metavar="NAME=RULE", help="a `where` rule prepared once")
    verb.add_argument("--voice", choices=["template", "model"], default="template", help="of the chat; model: the bundle's own")
    verb.add_argument("--device", help="cpu, cuda, ... (default: a GPU where there is one)")
    verb.add_argument("--batch", type=int, default=64, metavar="N", help="histories searched together (default: %(default)s)")
    verb.add_argument("--most-waiting", type=int, default=1024, metavar="N", help="beyond it: 429 (default: %(default)s)")
    verb.add_argument("--timeout", type=float, default=30.0, metavar="S", help="seconds for an answer (default: %(default)s)")
    verb.add_argument("--most-bytes", type=int, default=4 * 2**20, metavar="N", help="of a request (default: %(default)s)")
    verb.add_argument("--drain", type=int, default=30, metavar="S", help="for requests at a stop (default: %(default)s)")


def chat(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("bundle", type=Path)
    verb.add_argument("--history", default="", metavar="ID,ID,...", help="what the user had, oldest first")
    verb.add_argument("-k", type=int, default=5, metavar="K", help="items per answer (default: %(default)s)")
    verb.add_argument("--reader", metavar="URL", help="a chat model (OpenAI-compatible, up to /v1) that reads the rules")
    verb.add_argument("--reader-model", default="default", metavar="NAME", help="its name (its key: $GENREC_READER_KEY)")
    verb.add_argument("--voice", choices=["template", "model"], default="template", help="model: the bundle's own, if it can")
    verb.add_argument("--dialogues", type=Path, metavar="FOLDER", help="a saved dialogue ranker, which orders the items")
    verb.add_argument("--talker", metavar="URL", help="a chat model that speaks, with genrec's tools to call")
    verb.add_argument("--talker-model", default="default", metavar="NAME", help="its name (its key: $GENREC_TALKER_KEY)")


def mcp(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("bundle", type=Path)
    verb.add_argument("--history", default="", metavar="ID,ID,...", help="what the user had, oldest first")


def keys(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("action", choices=["add", "list"])
    verb.add_argument("file", type=Path)
    verb.add_argument("name", nargs="?")
    verb.add_argument("--scopes", nargs="+", default=["recommend"], help="of recommend, events, catalog, admin")
    verb.add_argument("--rate", type=float, default=0.0, metavar="R", help="requests a second (default: no limit)")


def demo(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--out", type=Path, default=Path("runs/demo"), metavar="FOLDER")


def add_settings(verb: argparse.ArgumentParser, sections: Sequence[str]) -> None:
    from genrec.recipe import settings

    group = verb.add_argument_group("settings of the recipe")
    for name, _kind, default, text in settings():
        if not name.startswith(tuple(sections)):
            continue
        group.add_argument(f"--{name.replace('_', '-')}", dest=name, metavar="X", default=argparse.SUPPRESS,
                           help=f"{text} (default: {default})".replace("%", "%%"))  # fmt: skip
