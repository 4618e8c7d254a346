"""The command line: a short table of verbs.

    genrec validate --items items.csv --interactions events.csv
    genrec fit --items items.csv --interactions events.csv --out runs/shop
    genrec evaluate runs/shop --interactions events.csv
    genrec recommend runs/shop --history B001,B002

Every setting of the recipe is also a flag of `fit`: `--training.epochs 5`. `genrec fit --help` lists them.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from genrec import __version__, verbs
from genrec import verb_flags as flags
from genrec.errors import GenrecError, SettingError, nearest
from genrec.verb_flags import SECTIONS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; the exit code: 0 done, 1 the data has errors (`validate`), 2 it could not be done."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr, force=True)
    logging.getLogger("genrec").setLevel(logging.INFO)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # where installed, it misses a kernel of its own at every start
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = build_parser(everything=bool(arguments) and arguments[0] in SECTIONS)
    known, unknown = parser.parse_known_args(arguments)
    try:
        if unknown:
            raise SettingError(_unknown_flag(unknown[0], known.verb))
        return known.run(known)
    except GenrecError as error:
        print(f"genrec {known.verb}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\ngenrec {known.verb}: stopped.", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        if "invalid choice" in message and "VERB" in message:
            message += nearest(message.split("'")[1], VERBS)
        super().error(message)


def build_parser(everything: bool = True) -> argparse.ArgumentParser:
    """The parser. The flags of the recipe need torch to be imported, so they are added only when `everything` is asked."""
    parser = _Parser(prog="genrec", description="Generative recommendation: items in, items back.", epilog=_EXAMPLES,
                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--version", action="version", version=f"genrec {__version__}")
    places = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, (run, add, summary) in VERBS.items():
        verb = places.add_parser(name, help=summary, description=summary, epilog=_examples_of(name), allow_abbrev=False,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
        verb.set_defaults(run=run)
        add(verb)
        if name in SECTIONS and everything:
            flags.add_settings(verb, SECTIONS[name])
    return parser


def _unknown_flag(flag: str, verb: str) -> str:
    from genrec.recipe import settings

    if not flag.startswith("-"):
        return f"There is no place for {flag!r} here. `genrec {verb} --help` shows what goes where."
    name = flag.split("=")[0]
    taken = SECTIONS.get(verb, ())
    possible = [f"--{setting.replace('_', '-')}" for setting, *_ in settings() if setting.startswith(taken)] if taken else []
    possible += ["--items", "--interactions", "--columns", "--out", "--recipe", "--overwrite", "--history", "--beam-width"]
    short = [known for known in possible if known.rsplit(".", 1)[-1] == name.lstrip("-")]
    hint = f" Did you mean {short[0]!r}?" if short else nearest(name, possible)
    return f"There is no flag {name}.{hint} `genrec {verb} --help` lists them."


def _examples_of(verb: str) -> str:
    lines = [line for line in _EXAMPLES.splitlines() if line.startswith(f"  genrec {verb}")]
    return "examples:\n" + "\n".join(lines)


_EXAMPLES = """examples:
  genrec demo
  genrec validate --items items.csv --interactions events.csv
  genrec validate --items items.csv --interactions events.csv --columns item_id=sku --columns user_id=customer
  genrec fit --items items.csv --interactions events.csv --out runs/shop
  genrec fit --items items.parquet --interactions events.parquet --out runs/shop --recipe training/recipes/beauty.yaml
  genrec fit --items items.csv --interactions events.csv --out runs/quick --training.epochs 3 --text.encoder tfidf-svd
  genrec preview --items items.csv --interactions events.csv --recipe training/recipes/lc_rec.yaml
  genrec tokenize --items items.csv --interactions events.csv --out runs/codes --recipe tokenizers/rq_vae.yaml
  genrec tokenize --items new_items.csv --append-to runs/codes --out runs/codes-2
  genrec fit --items items.csv --interactions events.csv --out runs/shop --codes runs/codes
  genrec tokenizers compare tokenizers/*.yaml --items items.csv --interactions events.csv
  genrec tokenizers diff runs/codes runs/codes-2
  genrec adapt runs/shops --items new_items.csv --out runs/new
  genrec evaluate runs/shop --interactions events.csv
  genrec evaluate runs/shop --interactions events.csv --out runs/shop-evaluation --leaderboard runs/board.jsonl
  genrec evaluate runs/shop --interactions events.csv --out runs/shop-evaluation --probes
  genrec compare runs/shop-evaluation runs/other-evaluation --out comparison.html
  genrec compare runs/other-evaluation --pool shop=runs/seed0,runs/seed1,runs/seed2
  genrec recommend runs/shop --history B001,B002
  genrec recommend runs/shop --interactions events.csv --user U17 -k 5
  genrec recommend runs/shop --interactions events.csv --out recommendations.parquet
  genrec serve runs/shop
  genrec serve shop=runs/shop books=runs/books --host 0.0.0.0 --keys keys.json --filter 'cheap=price < 10'
  genrec chat runs/shop --history B001,B002
  genrec chat runs/talk --voice model
  genrec chat runs/shop --dialogues runs/ranker
  genrec mcp runs/shop
  genrec keys add keys.json web --scopes recommend events --rate 50
  genrec recommend runs/shop --history B001 --where 'price < 20 and brand != "Acme"' --max-per brand=2 --explain
"""

VERBS: dict[str, tuple[Callable[[argparse.Namespace], int], Callable[[argparse.ArgumentParser], None], str]] = {
    "validate": (verbs.run_validate, flags.tables, "Check two tables and say what is wrong with them and how to mend it."),
    "fit": (verbs.run_fit, flags.fit, "Two tables in, a recommender out: codes, language model, evaluation, bundle."),
    "preview": (verbs.run_preview, flags.preview, "Show samples of the recipe's tasks, and what of them counts in the loss."),
    "tokenize": (verbs.run_tokenize, flags.tokenize, "Give the items of a catalogue codes, and say how good the codes are."),
    "tokenizers": (verbs.run_tokenizers, flags.tokenizers, "Compare recipes of item tokenizers, or two tables of codes."),
    "adapt": (verbs.run_adapt, flags.adapt, "Another catalogue for a model that knows items by text alone: no training."),
    "evaluate": (verbs.run_evaluate, flags.evaluate, "Measure a bundle and the baselines: item-level Recall and NDCG."),
    "compare": (verbs.run_compare, flags.compare, "Compare evaluations: paired tests, and quality against cost."),
    "recommend": (verbs.run_recommend, flags.recommend, "Recommend items from a bundle."),
    "serve": (verbs.run_serve, flags.serve, "Answer over HTTP."),
    "chat": (verbs.run_chat, flags.chat, "Talk in the terminal: rules in words, items from the catalogue."),
    "mcp": (verbs.run_mcp, flags.mcp, "Tools for an assistant (MCP) over standard input and output."),
    "keys": (verbs.run_keys, flags.keys, "Make and list API keys of a server."),
    "demo": (verbs.run_demo, flags.demo, "Fit and show a recommender on a synthetic shop, in a few minutes."),
}

if __name__ == "__main__":
    sys.exit(main())
