"""What the model will read: a few samples of each task as text, with what counts in the loss marked.

In: a `Mix`. Out: text for people. Samples are those of the first epoch, written and masked as the Trainer gets them; what is
between the marks is read from the labels themselves.
"""

import itertools

import numpy as np

from genrec.models.tokens import TokenLayout
from genrec.models.words import Words
from genrec.training.examples import IGNORED
from genrec.training.tasks.mix import PLAIN, Mix, MixCollator

LEARNED = "[[{}]]"  # marks what counts in the loss


def preview(mix: Mix, words: Words, samples: int, seed: int) -> str:
    """`samples` of each task, each on lines of its own under the task's name and numbers."""
    keys, _ = mix.epoch(seed, 0)
    random, collate = np.random.default_rng(seed), MixCollator(mix.layout.pad)
    lines = [f"{LEARNED.format('...')} counts in the loss, the rest is read"]
    names = {0: (PLAIN, len(mix.windows))}
    names |= {number: (task.name, len(task.examples)) for number, task in enumerate(mix.tasks, 1)}
    for number, (name, examples) in names.items():
        own = keys[keys[:, 0] == number]
        lines.append(f"\n{name}: {examples:,} examples, {len(own):,} in an epoch")
        for task, example, prompt in own[np.sort(random.choice(len(own), min(samples, len(own)), replace=False))].tolist():
            batch = collate([mix[task, example, prompt]])
            shown = show(batch["input_ids"][0].numpy(), batch["labels"][0].numpy() != IGNORED, mix.layout, words)
            lines.append("  " + shown.replace("\n", "\n  "))
    return "\n".join(lines)


def show(tokens: np.ndarray, learned: np.ndarray, layout: TokenLayout, words: Words) -> str:
    """Token ids [T] as text: codes by their names, words as the tokenizer spells them, learned stretches [T] in marks."""
    shown = []
    for counts, stretch in itertools.groupby(zip(tokens.tolist(), learned.tolist(), strict=True), key=lambda pair: pair[1]):
        text = _spelled([token for token, _ in stretch], layout, words)
        shown.append(LEARNED.format(text) if counts else text)
    return "".join(shown)


def _spelled(tokens: list[int], layout: TokenLayout, words: Words) -> str:
    texts = []
    for codes, group in itertools.groupby(tokens, key=lambda token: token in layout.code_tokens):
        ids = list(group)
        texts += [layout.name_of(token) for token in ids] if codes else [str(words.tokenizer.decode(ids))]
    return "".join(texts)
