"""The recommender's own language model as the voice: one generation of words and items, asked as its dialogue tasks taught it.

In: a loaded bundle that was fitted with `tasks.recommendation_turn`, the messages of a dialogue, a prepared request. Out:
`Speech`: words and catalogue rows in the order in which they were said.

    speaker = Speaker(recommender)
    conversation = Conversation(recommender, speaker=speaker)

What is guaranteed does not depend on the model: items obey the rules of the request (`genrec.decoding.speak`), titles are
printed from the catalogue, and a title that the model spells in words is taken out. Nobody checks what else its words say.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from transformers import AutoTokenizer

from genrec.chat.mentions import Mentions
from genrec.chat.spelling import ASSISTANT, MOST_CONTEXT, RECOMMENDS, Parts, spell_contexts
from genrec.chat.words import LONGEST_LINE, printable, unlisted
from genrec.decoding.beam import beam_search
from genrec.decoding.live import CatalogueVersion
from genrec.decoding.ranker import BeamRanker
from genrec.decoding.snapshot import Query
from genrec.decoding.speak import ItemSpan, Limits, anything, items_of, speak
from genrec.decoding.trial import check_model
from genrec.errors import SettingError
from genrec.models.pretrained import embedding_rows
from genrec.models.words import Words
from genrec.recommender import Recommender

USUAL = 10  # items that a model must have room for
TAKEN_OUT = "…"  # in the place of a title that the model spelled
_TURN = re.compile(r"\s*(?:User|Assistant)(?: recommends)?\s*:", re.I)  # begins another's turn


@dataclass(frozen=True, eq=False)
class Speech:
    """parts: words, ready to be printed, and catalogue rows of items, in order. scores: log P of each item after all that
    stands before it, float32 [items]. anything: whether the rules allowed any item. prompt_tokens, said_tokens: that the model
    read, and that it wrote, codes included."""

    parts: list[str | int]
    scores: np.ndarray
    anything: bool
    prompt_tokens: int = 0
    said_tokens: int = 0

    @property
    def rows(self) -> np.ndarray:
        """Rows of the items: int64 [items]."""
        return np.array([part for part in self.parts if isinstance(part, int)], np.int64)


class Speaker:
    """Speaks for one recommender. Holds no user's state, so many conversations may share it."""

    def __init__(self, recommender: Recommender, limits: Limits | None = None) -> None:
        """limits: of an answer; how many items there may be is the request's, unless they say fewer. Raises `SettingError` for
        a bundle that has not learned to answer in words."""
        check_speaks(recommender)
        ranker, bundle = recommender.ranker, recommender.bundle
        assert isinstance(ranker, BeamRanker)
        limits = limits or Limits()
        self.limits = replace(limits, beam_width=limits.beam_width or bundle.serving.beam_width)
        self.ranker, self.layout = ranker, ranker.layout
        tokenizer = AutoTokenizer.from_pretrained(bundle.folder, local_files_only=True)
        self.words = Words(tokenizer, self.layout.base, bundle.manifest["recipe"]["tasks"]["text_tokens"])
        self.writable = self.words.writable(embedding_rows(ranker.model))
        self._check_length(min(USUAL, bundle.serving.beam_width) if limits.items is None else limits.items)

    def _check_length(self, items: int) -> None:
        """Raise `SettingError` where a dialogue with an answer of so many items is longer than the model reads."""
        longest = 1 + MOST_CONTEXT + len(self.words.literal(RECOMMENDS)) + self.limits.words + self.layout.levels * items
        check_model(self.ranker.model, longest)
        positions = getattr(self.ranker.model.config, "max_position_embeddings", None)
        if positions is not None and positions < longest:
            raise SettingError(
                f"The model reads at most {positions} tokens, and a dialogue with an answer of {items} items may take "
                f"{longest}. Lower k or the limits of the speaker, or fit a model that reads more."
            )

    def say(
        self,
        messages: Sequence[Parts],
        before: Sequence[int],
        query: Query,
        version: CatalogueVersion,
        mentions: Mentions,
        random: torch.Generator | None = None,
    ) -> Speech:
        """Answer the dialogue. messages: the user's and the assistant's by turns, the user's last. before: rows that the user
        had before it. query: its rules and exclusions hold, of its history nothing is read; `query.k` items at most."""
        rules = replace(query.rules, excluded=query.excluded)
        items = query.k if self.limits.items is None else min(query.k, self.limits.items)
        self._check_length(items)
        limits = replace(self.limits, items=items)
        prompt = self.prompt(messages, before, version, ASSISTANT)
        spans = speak(self.ranker, prompt, version.snapshot, rules, self.writable, self.words.end, limits, random)
        parts: list[str | int] = []
        for span in spans:
            if isinstance(span, ItemSpan):
                parts.append(span.row)
                continue
            text = str(self.words.tokenizer.decode(list(span.tokens)))
            text, stop = own_turn(text if parts else text.lstrip())
            parts.append(self._shown(text, mentions))
            if stop:
                break
        _, scores = items_of(spans)
        scores = scores[: sum(isinstance(part, int) for part in parts)]
        said = sum(self.layout.levels if isinstance(span, ItemSpan) else len(span.tokens) for span in spans)
        return Speech(parts, scores, anything(version.snapshot, rules), len(prompt), said)

    def rank(
        self, messages: Sequence[Parts], before: Sequence[int], query: Query, version: CatalogueVersion
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best `query.k` items to recommend now, without words: rows int64 [n] and their log P, best first."""
        device = self.ranker.model.device
        prompt = torch.from_numpy(self.prompt(messages, before, version, RECOMMENDS)).to(device).unsqueeze(0)
        snapshot = version.snapshot.to(device)
        allowed = snapshot.allowed([query.rules.bitmap], [query.excluded])
        rows, scores = beam_search(
            self.ranker.model, self.ranker.head, prompt, torch.ones_like(prompt, dtype=torch.bool), snapshot.index, self.layout,
            query.k, query.widths, allowed,
        )  # fmt: skip
        found = (rows[0] >= 0).cpu().numpy()
        return rows[0].cpu().numpy()[found], scores[0].cpu().numpy()[found]

    def prompt(self, messages: Sequence[Parts], before: Sequence[int], version: CatalogueVersion, asks: str) -> np.ndarray:
        """What the model reads, as the tasks write it: token ids, int64 [T]. asks: what stands before the answer."""
        had = list(before)[-self.ranker.max_history :]
        context = spell_contexts([messages], version.snapshot.codes, self.layout, self.words, had)[0]
        return np.concatenate([[self.layout.start], context, self.words.literal(asks)]).astype(np.int64)

    def _shown(self, text: str, mentions: Mentions) -> str:
        """Words of the model as they may be printed: no title of the catalogue, no line of a list, nothing that steers."""
        text = printable(text.replace("\ufffd", ""), LONGEST_LINE)  # first, or what is invisible would hide a title
        for mention in reversed(mentions.find(text)):
            if mention.rows:
                text = text[: mention.start] + TAKEN_OUT + text[mention.end :]
        return unlisted(text)


def own_turn(text: str) -> tuple[str, bool]:
    """The words that are still the assistant's own turn, without a line break, and whether that turn ends with them: another's
    begins on a new line, of whichever kind."""
    line = next(iter(text.splitlines()), "")
    if _TURN.match(printable(line, LONGEST_LINE)):
        return "", True
    return line, line != text


def check_speaks(recommender: Recommender) -> None:
    """Raise `SettingError` for a bundle whose model has not learned to answer in words, or is not loaded."""
    recipe, folder = recommender.bundle.manifest["recipe"], recommender.bundle.folder
    learned = recipe.get("tasks", {}).get("recommendation_turn") and recipe.get("model", {}).get("pretrained")
    if recommender.bundle.one_pass or not learned:
        raise SettingError(
            f"The model in {folder} has not learned to answer in words, so it cannot be the voice. Fit one with "
            "model.pretrained and a weight for tasks.recommendation_turn, as training/recipes/talk.yaml does, or leave the "
            "voice at 'template'."
        )
    if not hasattr(recommender, "ranker"):
        raise SettingError(
            f"The model of {folder} is searched in another process, which does not speak. Use the engine 'torch', or leave the "
            "voice at 'template'."
        )
