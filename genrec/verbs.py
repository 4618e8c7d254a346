"""What each verb of the command line does.

In: its flags. Out: the exit code, 0 done and 1 the data has errors (`validate`). Raises `GenrecError`. What a verb needs is
imported when it runs: `genrec --help` must not wait for torch.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from genrec.errors import MissingDependencyError, SettingError
from genrec.flags import bundles_of, cap_of, columns_of, filters_of, ids_of, pool_of
from genrec.verb_flags import SECTIONS


def run_validate(args: argparse.Namespace) -> int:
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


def run_fit(args: argparse.Namespace) -> int:
    from genrec.fit import fit

    _quiet_transformers()
    fit(args.items, args.interactions, args.out, _recipe(args), args.overwrite, args.codes)
    return 0


def run_preview(args: argparse.Namespace) -> int:
    from genrec.tasks import preview_tasks

    print(preview_tasks(args.items, args.interactions, _recipe(args), args.codes, args.samples))
    return 0


def run_tokenize(args: argparse.Namespace) -> int:
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


def run_tokenizers(args: argparse.Namespace) -> int:
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


def run_adapt(args: argparse.Namespace) -> int:
    from genrec.adapt import adapt

    _quiet_transformers()
    adapt(args.bundle, args.items, args.out, columns_of(args.columns)[1], args.template)
    return 0


def run_evaluate(args: argparse.Namespace) -> int:
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


def run_compare(args: argparse.Namespace) -> int:
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


def run_recommend(args: argparse.Namespace) -> int:
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


def run_serve(args: argparse.Namespace) -> int:
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


def run_chat(args: argparse.Namespace) -> int:
    from genrec.chat.chat_model import ChatModel
    from genrec.chat.terminal import run

    _quiet_transformers()
    reader = ChatModel(args.reader, args.reader_model, os.environ.get("GENREC_READER_KEY")) if args.reader else None
    talker = ChatModel(args.talker, args.talker_model, os.environ.get("GENREC_TALKER_KEY")) if args.talker else None
    run(args.bundle, ids_of(args.history), args.k, reader, talker, args.voice, args.dialogues)
    return 0


def run_mcp(args: argparse.Namespace) -> int:
    from genrec.serving.mcp_server import run

    _quiet_transformers()
    run(args.bundle, ids_of(args.history))
    return 0


def run_keys(args: argparse.Namespace) -> int:
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


def run_demo(args: argparse.Namespace) -> int:
    from genrec.demo import run_demo

    _quiet_transformers()
    run_demo(args.out)
    return 0
