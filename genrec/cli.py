"""The command line: a short table of verbs.

    genrec validate --items items.csv --interactions events.csv
    genrec fit --items items.csv --interactions events.csv --out runs/shop
    genrec evaluate runs/shop --interactions events.csv
    genrec recommend runs/shop --history B001,B002

Every setting of the recipe is also a flag of `fit`: `--training.epochs 5`. `genrec fit --help` lists them.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from genrec import __version__
from genrec.errors import GenrecError, MissingDependencyError, SettingError, nearest
from genrec.flags import bundles_of, cap_of, columns_of, filters_of, ids_of, pool_of

log = logging.getLogger("genrec")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; the exit code: 0 done, 1 the data has errors (`validate`), 2 it could not be done."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr, force=True)
    logging.getLogger("genrec").setLevel(logging.INFO)
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
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, (run, add, summary) in VERBS.items():
        verb = verbs.add_parser(name, help=summary, description=summary, epilog=_examples_of(name), allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
        verb.set_defaults(run=run)
        add(verb)
        if name in SECTIONS and everything:
            _add_settings(verb, SECTIONS[name])
    return parser


def _tables(verb: argparse.ArgumentParser, interactions: bool = True) -> None:
    formats = "parquet, csv, tsv, jsonl, RecBole .item/.inter, a saved Hugging Face dataset, or hf:NAME@SPLIT"
    verb.add_argument("--items", required=True, metavar="TABLE", help=f"the catalogue, one row per item: {formats}")
    verb.add_argument("--interactions", required=interactions, metavar="TABLE", help="who met which item when, same formats")
    mapping = "map a column, such as user_id=reviewerID or item_id=asin (both tables; repeat the flag)"
    verb.add_argument("--columns", action="append", default=[], metavar="NAME=YOURS", help=mapping)


def _add_fit(verb: argparse.ArgumentParser) -> None:
    _tables(verb)
    verb.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="where the bundle goes")
    verb.add_argument("--recipe", type=Path, metavar="YAML", help="settings; see training/recipes/")
    verb.add_argument("--overwrite", action="store_true", help="start anew in a folder that holds a bundle or another fit")
    verb.add_argument("--codes", type=Path, metavar="FOLDER", help="train on codes that `genrec tokenize` published")


def _add_preview(verb: argparse.ArgumentParser) -> None:
    _tables(verb)
    verb.add_argument("--recipe", type=Path, metavar="YAML", help="settings; see training/recipes/")
    verb.add_argument(
        "--codes", type=Path, metavar="FOLDER", help="codes that `genrec tokenize` published (default: make them)"
    )
    verb.add_argument("--samples", type=int, default=2, metavar="N", help="of each task (default: %(default)s)")


def _add_tokenize(verb: argparse.ArgumentParser) -> None:
    _tables(verb, interactions=False)
    verb.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="where codes and report go")
    verb.add_argument("--recipe", type=Path, metavar="YAML", help="settings; see tokenizers/")
    verb.add_argument("--append-to", type=Path, metavar="FOLDER", help="the next generation of these codes: none of them moves")
    verb.add_argument("--item-vectors", type=Path, metavar="FILE", help="with --append-to: vectors of the new items (Parquet)")
    verb.add_argument("--overwrite", action="store_true", help="replace the codes in --out")


def _add_tokenizers(verb: argparse.ArgumentParser) -> None:
    actions = verb.add_subparsers(dest="action", metavar="ACTION", required=True)
    about = "One table of quality numbers for several recipes on one catalogue."
    compare = actions.add_parser("compare", help=about, description=about, allow_abbrev=False)
    compare.add_argument("recipes", nargs="+", type=Path, metavar="YAML")
    _tables(compare, interactions=False)
    compare.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    about = "How many items have other codes in the second table than in the first, and which."
    diff = actions.add_parser("diff", help=about, description=about, allow_abbrev=False)
    diff.add_argument("old", type=Path, metavar="OLD", help="a folder of codes or a bundle")
    diff.add_argument("new", type=Path, metavar="NEW")
    diff.add_argument("--out", type=Path, metavar="FILE", help="write what moved, an item a line (.parquet, .csv or .jsonl)")


def _add_settings(verb: argparse.ArgumentParser, sections: Sequence[str]) -> None:
    from genrec.recipe import settings

    group = verb.add_argument_group("settings of the recipe")
    for name, _kind, default, text in settings():
        if not name.startswith(tuple(sections)):
            continue
        group.add_argument(f"--{name.replace('_', '-')}", dest=name, metavar="X", default=argparse.SUPPRESS,
                           help=f"{text} (default: {default})".replace("%", "%%"))  # fmt: skip


def _add_adapt(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("bundle", type=Path, help="fitted on texts alone, such as with training/recipes/zero_shot.yaml")
    verb.add_argument("--items", required=True, metavar="TABLE", help="the other catalogue, same formats as in fit")
    verb.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="where the new bundle goes")
    verb.add_argument("--columns", action="append", default=[], metavar="NAME=YOURS", help="map a column of this shop's tables")
    verb.add_argument(
        "--template", metavar="TEXT", help="how an item of this shop is written, such as '{name}' (default: as in the bundle)"
    )


def _add_evaluate(verb: argparse.ArgumentParser) -> None:
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


def _add_compare(verb: argparse.ArgumentParser) -> None:
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


def _add_recommend(verb: argparse.ArgumentParser) -> None:
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


def _add_serve(verb: argparse.ArgumentParser) -> None:
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


def _add_chat(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("bundle", type=Path)
    verb.add_argument("--history", default="", metavar="ID,ID,...", help="what the user had, oldest first")
    verb.add_argument("-k", type=int, default=5, metavar="K", help="items per answer (default: %(default)s)")
    verb.add_argument("--reader", metavar="URL", help="a chat model (OpenAI-compatible, up to /v1) that reads the rules")
    verb.add_argument("--reader-model", default="default", metavar="NAME", help="its name (its key: $GENREC_READER_KEY)")
    verb.add_argument("--voice", choices=["template", "model"], default="template", help="model: the bundle's own, if it can")
    verb.add_argument("--dialogues", type=Path, metavar="FOLDER", help="a saved dialogue ranker, which orders the items")
    verb.add_argument("--talker", metavar="URL", help="a chat model that speaks, with genrec's tools to call")
    verb.add_argument("--talker-model", default="default", metavar="NAME", help="its name (its key: $GENREC_TALKER_KEY)")


def _add_mcp(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("bundle", type=Path)
    verb.add_argument("--history", default="", metavar="ID,ID,...", help="what the user had, oldest first")


def _add_keys(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("action", choices=["add", "list"])
    verb.add_argument("file", type=Path)
    verb.add_argument("name", nargs="?")
    verb.add_argument("--scopes", nargs="+", default=["recommend"], help="of recommend, events, catalog, admin")
    verb.add_argument("--rate", type=float, default=0.0, metavar="R", help="requests a second (default: no limit)")


def _add_demo(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--out", type=Path, default=Path("runs/demo"), metavar="FOLDER")


def _validate(args: argparse.Namespace) -> int:
    from genrec.data.readers import read_table
    from genrec.data.validate import validate

    items, events = columns_of(args.columns)
    report = validate(read_table(args.items, items), read_table(args.interactions, events))
    print(report)
    return 0 if report.ok else 1


def _quiet_transformers() -> None:
    """No bars for loading and writing weights of a few megabytes; training and ranking show their own."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()


def _recipe(args: argparse.Namespace) -> Any:
    """The recipe of `fit`, `preview` and `tokenize`: its file and the flags over it."""
    from genrec.recipe import from_text, load_recipe, settings

    given = vars(args)
    overrides: dict[str, Any] = {}
    items, events = columns_of(args.columns)
    overrides |= {"data.items_columns": items} if items else {}
    overrides |= {"data.interactions_columns": events} if events else {}
    overrides |= {name: from_text(kind, given[name]) for name, kind, *_ in settings() if name in given}
    return load_recipe(args.recipe, overrides)


def _fit(args: argparse.Namespace) -> int:
    from genrec.fit import fit

    _quiet_transformers()
    fit(args.items, args.interactions, args.out, _recipe(args), args.overwrite, args.codes)
    return 0


def _preview(args: argparse.Namespace) -> int:
    from genrec.tasks import preview_tasks

    print(preview_tasks(args.items, args.interactions, _recipe(args), args.codes, args.samples))
    return 0


def _tokenize(args: argparse.Namespace) -> int:
    from genrec.tokenize import append_to, tokenize

    if args.append_to is None:
        if args.item_vectors:
            raise SettingError("--item-vectors goes with --append-to. A first run takes --text.item-vectors FILE.")
        tokenize(args.items, args.interactions, args.out, _recipe(args), args.overwrite)
        return 0
    given = sorted(name for name in vars(args) if name.startswith(SECTIONS["tokenize"]))
    if args.interactions or args.recipe or args.columns or given:
        raise SettingError(
            "--append-to takes --items, --item-vectors, --out and --overwrite only: vectors, tokenizer and column names are "
            "those of the codes."
        )
    append_to(args.append_to, args.items, args.out, args.overwrite, args.item_vectors)
    return 0


def _tokenizers(args: argparse.Namespace) -> int:
    from genrec.codes import CodeTable, diff
    from genrec.data.writers import check_table, check_writable, write_table
    from genrec.printing import print_diff
    from genrec.recipe import load_recipe
    from genrec.tokenize import compare

    if args.action == "diff":
        old, new = (CodeTable.load(folder / "codes.parquet") for folder in (args.old, args.new))
        if args.out:
            check_table(args.out)
        found = diff(old, new)
        print_diff(old, new, found)
        if args.out:
            write_table(found.moved, args.out)
            print(f"What moved is written to {args.out}")
        return 0
    items, events = columns_of(args.columns)
    columns = ({"data.items_columns": items} if items else {}) | ({"data.interactions_columns": events} if events else {})
    names = [path.stem for path in args.recipes]
    if len(set(names)) != len(names):
        names = [str(path) for path in args.recipes]
    recipes = {name: load_recipe(path, columns) for name, path in zip(names, args.recipes, strict=True)}
    if args.json:
        check_writable(args.json)
    table, numbers = compare(recipes, args.items, args.interactions)
    print(table)
    if args.json:
        as_json = {name: quality.to_dict() for name, quality in numbers.items()}
        args.json.write_text(json.dumps(as_json, indent=2) + "\n", encoding="utf-8")
    return 0


def _adapt(args: argparse.Namespace) -> int:
    from genrec.adapt import adapt

    _quiet_transformers()
    adapt(args.bundle, args.items, args.out, columns_of(args.columns)[1], args.template)
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    from genrec.data.writers import check_writable
    from genrec.evaluate_bundle import evaluate_bundle
    from genrec.evaluation.evaluate import report_table
    from genrec.evaluation.leaderboard import add_to_leaderboard, read_leaderboard
    from genrec.evaluation.page import write_report
    from genrec.evaluation.probes import probe_table

    _quiet_transformers()
    name = args.bundle.resolve().name
    if args.leaderboard:
        check_writable(args.leaderboard)
        if args.leaderboard.exists():
            read_leaderboard(args.leaderboard)  # a file that is none is told before the work, not after
    _, events = columns_of(args.columns)
    report = evaluate_bundle(
        args.bundle, args.interactions, events or None, args.part, args.beam_width, args.max_questions,
        not args.no_baselines, args.illegal_rate, args.questions, args.strict, args.probes, args.width,
    )  # fmt: skip
    results = report.evaluation.results
    print(report_table(results))
    if args.illegal_rate:
        print(f"Without the catalogue, {results[0].illegal_rate:.2%} of the 10 best sequences are no item.")
    if report.probes:
        print(probe_table(report.probes))
    if args.out:
        print(f"The report is {write_report(report, args.out, name)}")
    if args.leaderboard:
        add_to_leaderboard(args.leaderboard, report.evaluation, name)
        print(f"{len(results)} lines added to {args.leaderboard}")
    return 0


def _compare(args: argparse.Namespace) -> int:
    from genrec.data.writers import check_writable
    from genrec.evaluation.compare import compare, comparison_table
    from genrec.evaluation.leaderboard import leaderboard_table, read_leaderboard
    from genrec.evaluation.page import comparison_html
    from genrec.evaluation.saved import read_evaluation, side_by_side

    if args.leaderboard:
        if args.evaluations or args.pool:
            raise SettingError("compare takes evaluations or --leaderboard, not both.")
        print(leaderboard_table(read_leaderboard(args.leaderboard), args.protocol))
        return 0
    if args.out:
        check_writable(args.out)
    pools: dict[str, list[Path]] = {}
    for name, folders in map(pool_of, args.pool):
        pools.setdefault(name, []).extend(folders)
    pooled = [folder for pool in pools.values() for folder in pool]
    twice = next((folder for folder in pooled if pooled.count(folder) > 1), None)
    if twice:
        raise SettingError(f"{twice} is in two pools, or twice in one. Name each folder once.")
    results = side_by_side({folder: read_evaluation(folder) for folder in [*args.evaluations, *pooled]}, pools)
    rows = compare(results, args.metric, args.k, args.protocol, args.reference)
    print(comparison_table(rows, f"{args.metric}@{args.k}"))
    if args.out:
        args.out.write_text(comparison_html(rows, f"{args.metric}@{args.k}"), encoding="utf-8")
        print(f"The page is {args.out}")
    return 0


def _recommend(args: argparse.Namespace) -> int:
    import pyarrow as pa
    import pyarrow.compute as pc

    from genrec.columns import ITEM_ID, USER_ID
    from genrec.data.readers import load_interactions
    from genrec.data.writers import write_table
    from genrec.printing import NOTHING, print_recommendations
    from genrec.recommender import Recommender

    _, columns = columns_of(args.columns)
    if bool(args.history) == bool(args.interactions):
        raise SettingError("Give either --history ID,ID,... or --interactions TABLE.")
    if args.interactions:
        events = load_interactions(args.interactions, columns).table
        if args.user:
            users = events.column(USER_ID)
            missing = sorted(set(args.user) - set(users.to_pylist()))
            if missing:
                raise SettingError(
                    f"--user must name users of {args.interactions}, got {missing[0]!r}, who has no event there."
                )
            events = events.filter(pc.is_in(users, pa.array(args.user)))
    else:
        histories = [ids_of(history) for history in args.history]
    _quiet_transformers()
    recommender = Recommender.load(args.bundle)
    options = {
        "k": args.k, "beam_width": args.beam_width, "exclude_seen": args.exclude_seen, "unsupported": args.unsupported,
        "exclude_item_ids": ids_of(args.exclude_item_ids),
        "only_item_ids": None if args.only_item_ids is None else ids_of(args.only_item_ids),
        "where": args.where, "max_per": dict(map(cap_of, args.max_per)),
    }  # fmt: skip
    if args.explain:
        if args.interactions or args.out:
            raise SettingError("--explain prints; it goes with --history, without --interactions and --out.")
        for user, items in enumerate(recommender.recommend(histories, explain=True, **options), 1):
            lines = [f"{item.rank:>4}  {item.explanation}" for item in items] or [NOTHING]
            print(f"user {user}", *lines, sep="\n")
        return 0
    if args.interactions:
        table = recommender.recommend_df(events, **options)
    else:
        rows = [
            {USER_ID: str(user), "rank": item.rank, ITEM_ID: item.item_id, "score": item.score} | item.fields
            for user, items in enumerate(recommender.recommend(histories, **options), 1)
            for item in items
        ]
        table = pa.Table.from_pylist(rows)
    if args.out:
        write_table(table, args.out)
        print(f"{table.num_rows} recommendations written to {args.out}")
    else:
        print_recommendations(table)
    return 0


def _serve(args: argparse.Namespace) -> int:
    try:
        from genrec.serving.server import ServerSettings, run
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f"`genrec serve` needs the extra `serving` ({error.name} is missing): "
                                     "pip install 'genrec[serving]'") from None  # fmt: skip
    _quiet_transformers()
    run(ServerSettings(
        bundles_of(args.bundles), args.store, args.keys, args.host, args.port, args.device, args.batch, args.most_waiting,
        args.timeout, args.engine, args.most_bytes, args.drain, filters_of(args.filter), args.voice, tuple(args.allow_host),
    ))  # fmt: skip
    return 0


def _chat(args: argparse.Namespace) -> int:
    from genrec.chat.chat_model import ChatModel
    from genrec.chat.terminal import run

    _quiet_transformers()
    reader = ChatModel(args.reader, args.reader_model, os.environ.get("GENREC_READER_KEY")) if args.reader else None
    talker = ChatModel(args.talker, args.talker_model, os.environ.get("GENREC_TALKER_KEY")) if args.talker else None
    run(args.bundle, ids_of(args.history), args.k, reader, talker, args.voice, args.dialogues)
    return 0


def _mcp(args: argparse.Namespace) -> int:
    from genrec.serving.mcp_server import run

    _quiet_transformers()
    run(args.bundle, ids_of(args.history))
    return 0


def _keys(args: argparse.Namespace) -> int:
    from genrec.serving.security import make_key, read_keys

    if args.action == "list":
        for key in read_keys(args.file):
            print(f"{key.name}  {' '.join(key.scopes)}  {f'{key.rate:g} a second' if key.rate else 'no limit'}")
        return 0
    if not args.name:
        raise SettingError("Give the key a name: genrec keys add FILE NAME.")
    print(make_key(args.file, args.name, tuple(args.scopes), args.rate))
    print("This is the only time that the key is shown.", file=sys.stderr)
    return 0


def _demo(args: argparse.Namespace) -> int:
    from genrec.demo import run_demo

    _quiet_transformers()
    run_demo(args.out)
    return 0


def _unknown_flag(flag: str, verb: str) -> str:
    from genrec.recipe import settings

    if not flag.startswith("-"):
        return f"There is no place for {flag!r} here. `genrec {verb} --help` shows what goes where."
    name = flag.split("=")[0]
    taken = SECTIONS.get(verb, ())
    flags = [f"--{setting.replace('_', '-')}" for setting, *_ in settings() if setting.startswith(taken)] if taken else []
    flags += ["--items", "--interactions", "--columns", "--out", "--recipe", "--overwrite", "--history", "--beam-width"]
    short = [known for known in flags if known.rsplit(".", 1)[-1] == name.lstrip("-")]
    hint = f" Did you mean {short[0]!r}?" if short else nearest(name, flags)
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

VERBS: dict[str, tuple[Any, Any, str]] = {
    "validate": (_validate, _tables, "Check two tables and say what is wrong with them and how to mend it."),
    "fit": (_fit, _add_fit, "Two tables in, a recommender out: codes, language model, evaluation, bundle."),
    "preview": (_preview, _add_preview, "Show samples of the recipe's tasks, and what of them counts in the loss."),
    "tokenize": (_tokenize, _add_tokenize, "Give the items of a catalogue their codes, and say how good the codes are."),
    "tokenizers": (_tokenizers, _add_tokenizers, "Compare recipes of item tokenizers, or two tables of codes."),
    "adapt": (_adapt, _add_adapt, "Another catalogue for a fitted model that knows items by text alone: no training."),
    "evaluate": (_evaluate, _add_evaluate, "Measure a bundle and the baselines: item-level Recall and NDCG."),
    "compare": (_compare, _add_compare, "Compare evaluations: paired tests, and quality against cost."),
    "recommend": (_recommend, _add_recommend, "Recommend items from a bundle."),
    "serve": (_serve, _add_serve, "Answer over HTTP."),
    "chat": (_chat, _add_chat, "Talk in the terminal: rules in words, items from the catalogue."),
    "mcp": (_mcp, _add_mcp, "Tools for an assistant (MCP) over standard input and output."),
    "keys": (_keys, _add_keys, "Make and list API keys of a server."),
    "demo": (_demo, _add_demo, "Fit and show a recommender on a synthetic shop, in a few minutes."),
}

# Verbs that take settings of the recipe as flags, and which.
SECTIONS: dict[str, tuple[str, ...]] = {"fit": ("",), "preview": ("",), "tokenize": ("seed", "data.", "text.", "tokenizer.")}

if __name__ == "__main__":
    sys.exit(main())
