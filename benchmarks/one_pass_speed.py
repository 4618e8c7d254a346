"""Users per second of a one-pass model beside a language model of the same catalogue: our beam search and `generate`.

In: a fitted bundle of each kind, of the same items, and the events of their fit. Out: a Markdown row per way to answer: users
per second, how many times the first way's time it takes, memory. Quality is not measured and few epochs do: speed depends on
sizes alone, of the networks, the codes and the histories.

    genrec fit ... --recipe training/recipes/fused.yaml --training.epochs 2 --out runs/one_pass
    genrec fit ... --recipe training/recipes/office.yaml --training.epochs 2 --out runs/decoder
    python benchmarks/one_pass_speed.py runs/one_pass runs/decoder --interactions events.parquet

Every way goes from histories (catalogue rows) to the rows of the best k items and answers the same users, drawn with seed 0
from the test questions, in the same batch. Ways take turns; the numbers are medians over the rounds, the last column the median
of the rounds' ratios. Seen items are left out by the one-pass model and the beam. `generate` has the trie of
`benchmarks/decoding.py` and cannot leave them out, so it does less. Memory is what a call held at its peak beyond what was
there before it (models, catalogue); on a CPU it is known on Linux alone.
"""

import argparse
import ctypes
import gc
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from decoding import build_trie, in_turns, median, ratio, with_generate

from genrec.data.interactions import Histories
from genrec.data.readers import load_interactions
from genrec.decoding.one_pass import OnePassRanker
from genrec.decoding.ranker import BeamRanker
from genrec.recipe import Recipe, build
from genrec.recommender import Recommender
from genrec.tables import split_histories


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("one_pass", type=Path, help="bundle of a one-pass model; with votes, it is timed with and without them")
    parser.add_argument("decoder", type=Path, help="bundle of a decoder, fitted on the same items")
    parser.add_argument("--interactions", required=True, help="events of both fits, whose test questions bring the histories")
    parser.add_argument("--users", type=int, default=64, help="answered together")
    parser.add_argument("--k", type=int, default=10, help="items for each")
    parser.add_argument("--beams", type=int, nargs="+", default=[20, 50])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    first, second = Recommender.load(arguments.one_pass), Recommender.load(arguments.decoder)
    if not isinstance(first.ranker, OnePassRanker) or not isinstance(second.ranker, BeamRanker):
        parser.error("the first bundle must hold a one-pass model, the second a language model")
    if not np.array_equal(first.bundle.catalogue.item_ids, second.bundle.catalogue.item_ids):
        parser.error("the bundles hold different items: fit both on the same table")
    histories = asked(first, arguments.interactions, arguments.users, second.ranker.max_history)
    ways = ways_to_answer(first.ranker, second.ranker, histories, arguments.k, arguments.beams)
    memory = {name: peak_memory(work) for name, work in ways.items()}  # this is the round that does not count, too
    times = in_turns(list(ways.values()), arguments.rounds)
    weights = [recommender.bundle.metrics["weights"] / 1e6 for recommender in (first, second)]
    mean = len(histories.items) / len(histories)
    print(
        f"{len(first.bundle.catalogue):,} items, {len(histories)} users at once with {mean:.1f} items each, k {arguments.k}, "
        f"weights {weights[0]:.1f}M and {weights[1]:.1f}M, {torch.get_num_threads()} threads, device {first.ranker.device}, "
        f"{arguments.rounds} rounds\n"
    )
    print("| way | users/s | times as long as the first | peak memory of a call, MB |")
    print("| --- | --- | --- | --- |")
    for name, taken in zip(ways, times, strict=True):
        rate, held = 1000 * len(histories) / median(taken), memory[name]
        print(f"| {name} | {rate:,.0f} | {ratio(taken, times[0]):.1f} | {'-' if held is None else f'{held / 2**20:,.0f}'} |")


def asked(recommender: Recommender, interactions: str, users: int, latest: int) -> Histories:
    """Histories of some test questions, as many of their last items as the language model reads."""
    recipe = build(Recipe, recommender.bundle.manifest["recipe"], "")
    events = load_interactions(interactions, recipe.data.interactions_columns)
    split = split_histories(events.histories(recommender.bundle.catalogue, recipe.data.unknown_items), recipe)
    return Histories.from_lists([rows[-latest:] for rows in split.test.sample(users, 0).histories.to_lists()])


def ways_to_answer(
    scores: OnePassRanker, beams: BeamRanker, histories: Histories, k: int, widths: list[int]
) -> dict[str, Callable[[], object]]:
    """Each way to answer, ready to be called, the one-pass model alone first."""
    alone = OnePassRanker(scores.model, scores.layout, scores.snapshot, scores.train_counts, width=scores.width)
    ways: dict[str, Callable[[], object]] = {"one-pass": partial(alone.rank, histories, k, True)}
    if scores.fusion:
        ways["one-pass with votes"] = partial(scores.rank, histories, k, True)
    tokens = beams.layout.to_tokens(beams.snapshot.codes)
    trie, row_of = build_trie(tokens), {tuple(item): row for row, item in enumerate(tokens.tolist())}
    for width in widths:
        ways[f"beam {width}"] = partial(beams.rank, histories, k, True, beam_width=width)
    for width in widths:
        ways[f"generate, {width} beams"] = partial(with_generate, beams, trie, row_of, histories, width, k)
    return ways


def peak_memory(work: Callable[[], object]) -> int | None:
    """Bytes held at the peak of a call beyond those before it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    if sys.platform != "linux":
        work()
        return None
    ctypes.CDLL(None).malloc_trim(0)  # what an earlier call gave back to the allocator must not pass for memory that is there
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident("VmRSS")
    work()
    return resident("VmHWM") - before


def resident(field: str) -> int:
    """A line of this process's memory, in bytes: VmRSS, now, or VmHWM, at the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    main()
