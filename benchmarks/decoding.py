"""Time the catalogue-constrained beam search: against Hugging Face `generate`, against no constraint, and under filters.

    python benchmarks/decoding.py                                  # 100,000 items of 4 x 256 codes, about 1M and 10M weights
    python benchmarks/decoding.py --weights 1 --items 1000000 --tables constraint filters
    python benchmarks/decoding.py --device cuda

Everything in a row of a table decodes the same random model on the same histories in turns; the tables show medians and the
median of the ratios. `generate` is called in the usual way of research code: a trie of dicts behind `prefix_allowed_tokens_fn`,
with renormalisation off. The overlap says how far the two agree on the top 10.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from genrec.data.interactions import Histories
from genrec.data.where import where_mask
from genrec.decoding.ranker import BeamRanker
from genrec.decoding.snapshot import Rules, Snapshot
from genrec.models.tokens import TokenLayout, write_histories

SIZES = (256, 256, 256, 256)
SHAPES = {1: (128, 4, 4, 512), 10: (320, 8, 5, 1280)}  # hidden size, layers, heads, feed-forward


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--weights", type=int, nargs="+", default=[1, 10], choices=SHAPES, help="of the model, in millions")
    parser.add_argument("--history", type=int, default=20, help="items per history")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--generate-repeats", type=int, default=3)
    parser.add_argument("--tables", nargs="+", default=["generate", "constraint", "filters", "profile"])
    parser.add_argument("--cells", nargs="+", default=["1x20", "1x50", "16x20", "16x50"], help="users x beam width")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    random = np.random.default_rng(arguments.seed)
    codes = np.unique(random.integers(0, SIZES, (2 * arguments.items, 4)), axis=0)
    codes = random.permutation(codes)[: arguments.items].astype(np.int32)
    snapshot = Snapshot.of(codes, SIZES)
    rankers = {millions: make_ranker(millions, snapshot, arguments) for millions in arguments.weights}
    cells = [tuple(map(int, cell.split("x"))) for cell in arguments.cells]
    histories = {
        users: Histories.from_lists(list(random.integers(0, len(codes), (users, arguments.history)))) for users, _ in cells
    }
    print(f"{len(codes)} items, {torch.get_num_threads()} threads, device {arguments.device}, {arguments.repeats} rounds")
    tables = {
        "generate": against_generate,
        "constraint": cost_of_the_constraint,
        "filters": cost_of_filters,
        "profile": profile,
    }
    for name in arguments.tables:
        tables[name](rankers, histories, cells, random, arguments)


def make_ranker(millions: int, snapshot: Snapshot, arguments: argparse.Namespace) -> BeamRanker:
    torch.manual_seed(arguments.seed)
    layout = TokenLayout.from_scratch(SIZES)
    width, layers, heads, inner = SHAPES[millions]
    model = Qwen3ForCausalLM(Qwen3Config(
        vocab_size=layout.vocabulary_size, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=heads, head_dim=width // heads, intermediate_size=inner, tie_word_embeddings=True,
        max_position_embeddings=1 + 4 * (arguments.history + 1), pad_token_id=layout.pad, bos_token_id=layout.start,
        eos_token_id=None))  # fmt: skip
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(4)  # probabilities far enough apart that ties do not decide
    return BeamRanker(model.eval().to(arguments.device), layout, snapshot, 512, arguments.history)


def against_generate(rankers: dict, histories: dict, cells: list, random: np.random.Generator, arguments: Any) -> None:
    print("\n| weights | users | beam width | genrec ms | generate ms | genrec users/s | ratio | overlap of the top 10 |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    trie, row_of = None, None
    for millions, ranker in rankers.items():
        tokens = ranker.layout.to_tokens(ranker.snapshot.codes)
        trie = trie or build_trie(tokens)
        row_of = row_of or {tuple(item): row for row, item in enumerate(tokens.tolist())}
        for users, width in cells:
            ours = partial(ranker.rank, histories[users], 10, False, beam_width=width)
            theirs = partial(with_generate, ranker, trie, row_of, histories[users], width)
            (found, _), expected = ours(), theirs()  # the first round warms up
            mine, other = in_turns([ours, theirs], arguments.generate_repeats)
            overlap = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), expected, strict=True)])
            print(
                f"| {millions}M | {users} | {width} | {median(mine):.0f} | {median(other):.0f} "
                f"| {1000 * users / median(mine):.0f} | {ratio(other, mine):.1f}x | {overlap:.2f} |",
                flush=True,
            )


class NoConstraint:
    """Every code may follow every code: what a search costs whose candidates need no catalogue."""

    def __init__(self, index: Any) -> None:
        self.index, self.levels, self.sizes, self.fanout = index, index.levels, index.sizes, list(index.sizes)
        self.device = index.device

    def __len__(self) -> int:
        return len(self.index)

    def expand(self, nodes: Tensor, level: int, static: bool = False, before: None = None) -> tuple[Tensor, Tensor, Tensor]:
        codes = torch.arange(self.sizes[level], device=nodes.device).expand(*nodes.shape, -1)
        return codes, codes, torch.ones_like(codes, dtype=torch.bool)

    def rows_at(self, positions: Tensor) -> Tensor:
        return positions


def cost_of_the_constraint(rankers: dict, histories: dict, cells: list, random: np.random.Generator, arguments: Any) -> None:
    """The same search with and without the tree, and the time inside the tree's own calls."""
    print("\n| weights | users | beam width | constrained ms | free ms | difference | in the index, of a step |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for millions, ranker in rankers.items():
        snapshot = ranker.snapshot
        free = Snapshot(NoConstraint(snapshot.index), snapshot.codes)  # type: ignore[arg-type]
        for users, width in cells:
            with_tree = partial(ranker.rank, histories[users], 10, False, beam_width=width)
            without = partial(with_tree, snapshot=free)
            for _ in range(3):
                with_tree(), without()
            mine, other = in_turns([with_tree, without], arguments.repeats * 3)
            inside = share_inside(snapshot.index, "expand", with_tree, arguments.repeats * 3)
            print(
                f"| {millions}M | {users} | {width} | {median(mine):.1f} | {median(other):.1f} "
                f"| {100 * (ratio(mine, other) - 1):+.1f} % | {100 * inside:.1f} % |",
                flush=True,
            )


def cost_of_filters(rankers: dict, histories: dict, cells: list, random: np.random.Generator, arguments: Any) -> None:
    print("\n| weights | users | beam width | no filter ms | where and 20 excluded | prepared and 20 excluded |")
    print("| --- | --- | --- | --- | --- | --- |")
    for millions, ranker in rankers.items():
        snapshot = ranker.snapshot
        rows, texts = len(snapshot.codes), {}
        table = pa.table(
            {
                "price": random.uniform(1, 100, rows),
                "category": random.choice(["Skin Care", "Hair Care", "Makeup", "Tools"], rows),
            }
        )
        expression = 'price < 50 and category != "Makeup"'
        prepared, gone = snapshot.bitmap(where_mask(table, expression)), random.integers(0, rows, 20)
        by_text = partial(from_text, snapshot, table, expression, texts, gone)
        by_bitmap = partial(Rules, prepared, gone)
        for users, width in cells:
            plain = partial(ranker.rank, histories[users], 10, False, beam_width=width)
            by_where, by_name = partial(filtered, plain, by_text), partial(filtered, plain, by_bitmap)
            for call in (plain, by_where, by_name):
                call()
            base, where, named = in_turns([plain, by_where, by_name], arguments.repeats * 3)
            print(
                f"| {millions}M | {users} | {width} | {median(base):.1f} | {100 * (ratio(where, base) - 1):+.1f} % "
                f"| {100 * (ratio(named, base) - 1):+.1f} % |",
                flush=True,
            )


def filtered(rank: Callable[..., Any], make_rules: Callable[[], Rules]) -> None:
    """A request brings its rules: making them is part of its time."""
    rank(rules=make_rules())


def from_text(snapshot: Snapshot, table: pa.Table, expression: str, texts: dict, gone: np.ndarray) -> Rules:
    return Rules(snapshot.bitmap(where_mask(table, expression, texts)), gone)


def profile(rankers: dict, histories: dict, cells: list, random: np.random.Generator, arguments: Any) -> None:
    """Where the time of a search goes."""
    from genrec.decoding import beam, steps

    print("\n| weights | users | beam width | history | codes | output layer | index | rest |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for millions, ranker in rankers.items():
        for users, width in cells:
            ask = partial(ranker.rank, histories[users], 10, False, beam_width=width)
            ask()
            parts = [
                share_inside(owner, name, ask, arguments.repeats)
                for owner, name in [
                    (beam, "start"), (steps.CausalSteps, "advance"), (steps.Head, "log_probs"),
                    (ranker.snapshot.index, "expand"),
                ]
            ]  # fmt: skip
            shares = " | ".join(f"{100 * part:.0f} %" for part in [*parts, 1 - sum(parts)])
            print(f"| {millions}M | {users} | {width} | {shares} |", flush=True)


def share_inside(owner: Any, name: str, call: Callable[[], object], rounds: int) -> float:
    """Share of `call`'s time that is spent inside `owner.name`: median over rounds."""
    original = getattr(owner, name)
    spent = 0.0

    def timed_part(*args: Any, **kwargs: Any) -> Any:
        nonlocal spent
        synchronise()
        begin = time.perf_counter()
        result = original(*args, **kwargs)
        synchronise()
        spent += time.perf_counter() - begin
        return result

    where = owner.__dict__
    had = name in where
    object.__setattr__(owner, name, timed_part) if not isinstance(owner, type) else setattr(owner, name, timed_part)
    shares = []
    try:
        for _ in range(rounds):
            spent = 0.0
            total = timed(call)
            shares.append(spent / total)
    finally:
        if isinstance(owner, type):
            setattr(owner, name, original)
        elif had:
            object.__setattr__(owner, name, original)
        else:
            object.__delattr__(owner, name)
    return statistics.median(shares)


def in_turns(calls: list[Callable[[], object]], rounds: int) -> list[list[float]]:
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, mine in zip(calls, times, strict=True):
            mine.append(timed(call))
    return times


def timed(call: Callable[[], object]) -> float:
    synchronise()
    started = time.perf_counter()
    call()
    synchronise()
    return time.perf_counter() - started


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def median(times: list[float]) -> float:
    """Milliseconds."""
    return 1000 * statistics.median(times)


def ratio(slow: list[float], fast: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def build_trie(item_tokens: np.ndarray) -> dict:
    trie: dict = {}
    for item in item_tokens.tolist():
        node = trie
        for token in item:
            node = node.setdefault(token, {})
    return trie


def with_generate(
    ranker: BeamRanker, trie: dict, row_of: dict, histories: Histories, width: int, k: int = 10
) -> list[list[int]]:
    """The top k rows per user from `generate`."""
    tokens, mask = write_histories(histories.to_lists(), ranker.snapshot.codes, ranker.layout)
    length, levels = tokens.shape[1], ranker.layout.levels
    device = ranker.model.device

    def allowed(_: int, sequence: Tensor) -> list[int]:
        node = trie
        for token in sequence[length:].tolist():
            node = node.get(token, {})
        return list(node) or [ranker.layout.pad]

    output = ranker.model.generate(
        input_ids=torch.from_numpy(tokens).to(device), attention_mask=torch.from_numpy(mask).long().to(device), num_beams=width,
        num_return_sequences=k, max_new_tokens=levels, do_sample=False, prefix_allowed_tokens_fn=allowed, length_penalty=0.0,
    )  # fmt: skip
    spelled = output[:, length:].reshape(len(histories), k, levels).tolist()
    return [[row_of.get(tuple(item), -1) for item in items] for items in spelled]


if __name__ == "__main__":
    main()
