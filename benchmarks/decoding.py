"""Time the catalogue-constrained beam search beside Hugging Face `generate` under the same constraint, in one run.

    python benchmarks/decoding.py                       # 1.1M weights, 10,000 items, 20 items of history
    python benchmarks/decoding.py --users 16 --beam-width 50 --items 100000

Both decode the same random model on the same histories; the two take turns, and the table shows medians and their ratio. The
overlap says how far the two agree on the items. `generate` is called in the usual way of research code: a trie of dicts behind
`prefix_allowed_tokens_fn`, with renormalisation off.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from genrec.data.interactions import Histories
from genrec.decoding.index import CatalogueIndex
from genrec.decoding.ranker import BeamRanker
from genrec.models.decoder import ModelConfig, build_decoder
from genrec.models.tokens import write_histories


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--users", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--beam-width", type=int, nargs="+", default=[20, 50])
    parser.add_argument("--history", type=int, default=20, help="items per history")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    random = np.random.default_rng(arguments.seed)
    sizes = (256, 256, 256, 16)
    codes = np.unique(random.integers(0, sizes, (2 * arguments.items, 4)), axis=0)
    codes = random.permutation(codes)[: arguments.items]
    model, layout = build_decoder(ModelConfig(dropout=0.0), sizes, 1 + 4 * (arguments.history + 1))
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(4)  # probabilities far enough apart that ties do not decide
    ranker = BeamRanker(
        model, layout, CatalogueIndex.build(codes, sizes), layout.to_tokens(codes), max(arguments.beam_width), arguments.history
    )
    trie = build_trie(ranker.item_tokens)
    row_of = {tuple(tokens): row for row, tokens in enumerate(ranker.item_tokens.tolist())}
    print(f"{arguments.items} items, {torch.get_num_threads()} threads, median of {arguments.repeats} rounds\n")
    print("| users | beam width | genrec ms | generate ms | ratio | overlap of the top 10 |")
    print("| --- | --- | --- | --- | --- | --- |")
    for users in arguments.users:
        histories = random.integers(0, arguments.items, (users, arguments.history))
        for width in arguments.beam_width:
            ours = lambda w=width, h=histories: ranker.rank(Histories.from_lists(list(h)), 10, False, beam_width=w)[0]  # noqa: E731
            theirs = lambda w=width, h=histories: with_generate(ranker, trie, row_of, h, w)  # noqa: E731
            mine, other = [], []
            found, expected = ours(), theirs()  # the first round warms up
            for _ in range(arguments.repeats):
                mine.append(timed(ours))
                other.append(timed(theirs))
            overlap = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), expected, strict=True)])
            ratio = statistics.median(b / a for a, b in zip(mine, other, strict=True))
            print(
                f"| {users} | {width} | {1000 * statistics.median(mine):.0f} | {1000 * statistics.median(other):.0f} "
                f"| {ratio:.1f}x | {overlap:.2f} |",
                flush=True,
            )


def timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def build_trie(item_tokens: np.ndarray) -> dict:
    trie: dict = {}
    for item in item_tokens.tolist():
        node = trie
        for token in item:
            node = node.setdefault(token, {})
    return trie


def with_generate(ranker: BeamRanker, trie: dict, row_of: dict, histories: np.ndarray, width: int) -> list[list[int]]:
    """The top 10 rows per user from `generate`."""
    tokens, mask = write_histories(list(histories), ranker.item_tokens, ranker.layout)
    length = tokens.shape[1]

    def allowed(_: int, sequence: torch.Tensor) -> list[int]:
        node = trie
        for token in sequence[length:].tolist():
            node = node.get(token, {})
        return list(node) or [ranker.layout.pad]

    ranker.model.eval()
    output = ranker.model.generate(
        input_ids=torch.from_numpy(tokens), attention_mask=torch.from_numpy(mask).long(), num_beams=width,
        num_return_sequences=10, max_new_tokens=4, do_sample=False, prefix_allowed_tokens_fn=allowed, length_penalty=0.0,
    )  # fmt: skip
    spelled = output[:, length:].reshape(len(histories), 10, 4).tolist()
    return [[row_of.get(tuple(item), -1) for item in items] for items in spelled]


if __name__ == "__main__":
    main()
