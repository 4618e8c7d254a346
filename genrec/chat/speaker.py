"""The recommender's own language model as the voice: one generation of words and items, asked as its dialogue tasks taught it.

In: a loaded bundle that was fitted with `tasks.recommendation_turn`, the messages of a dialogue, a prepared request. Out:
`Speech`: words and catalogue rows in the order in which they were said.

    speaker = Speaker(recommender)
    conversation = Conversation(recommender, speaker=speaker)

What is guaranteed does not depend on the model: items obey the rules of the request (`genrec.decoding.speak`), titles are
printed from the catalogue, and a title that the model spells in words is taken out. Nobody checks what else its words say.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from transformers import AutoTokenizer

from genrec.chat.mentions import Mentions
from genrec.chat.spelling import ASSISTANT, MOST_CONTEXT, RECOMMENDS, Parts, join, spell_contexts
from genrec.chat.words import unlisted
from genrec.decoding.beam import beam_search
from genrec.decoding.live import CatalogueVersion
from genrec.decoding.ranker import BeamRanker
from genrec.decoding.snapshot import Query
from genrec.decoding.speak import ItemSpan, Limits, anything, items_of, speak
from genrec.decoding.steps import check_model
from genrec.errors import SettingError
from genrec.models.pretrained import embedding_rows
from genrec.models.words import Words
from genrec.recommender import Recommender

TAKEN_OUT = "…"  # in the place of a title that the model spelled
HAD = "I have had"  # what the user had before the dialogue, as the tasks tell it


@dataclass(frozen=True, eq=False)
class Speech:
    """parts: words, ready to be printed, and catalogue rows of items, in order. scores: log P of each item after all that
    stands before it, float32 [items]. anything: whether the rules allowed any item."""

    parts: list[str | int]
    scores: np.ndarray
    anything: bool

    @property
    def rows(self) -> np.ndarray:
        """Rows of the items: int64 [items]."""
        return np.array([part for part in self.parts if isinstance(part, int)], np.int64)


class Speaker:
    """Speaks for one recommender. Holds no user's state, so many conversations may share it."""

    def __init__(self, recommender: Recommender, limits: Limits | None = None) -> None:
        """limits: of an answer; how many items there may be is the request's. Raises `SettingError` for a bundle that has not
        learned to answer in words."""
        check_speaks(recommender)
        ranker, bundle = recommender.ranker, recommender.bundle
        assert isinstance(ranker, BeamRanker)
        self.ranker, self.limits, self.layout = ranker, limits or Limits(), ranker.layout
        tokenizer = AutoTokenizer.from_pretrained(bundle.folder, local_files_only=True)
        self.words = Words(tokenizer, self.layout.base, bundle.manifest["recipe"]["tasks"]["text_tokens"])
        self.writable = self.words.writable(embedding_rows(ranker.model))
        longest = 1 + MOST_CONTEXT + len(self.words.literal(RECOMMENDS))
        longest += self.limits.words + self.layout.levels * self.limits.items
        check_model(ranker.model, longest)
        positions = getattr(ranker.model.config, "max_position_embeddings", None)
        if positions is not None and positions < longest:
            raise SettingError(
                f"The model reads at most {positions} tokens, and a dialogue with its answer may take {longest}. Lower the "
                "limits of the speaker, or fit a model that reads more."
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
        limits = replace(self.limits, items=min(query.k, self.limits.items))
        prompt = self.prompt(messages, before, version, ASSISTANT)
        spans = speak(self.ranker, prompt, version.snapshot, rules, self.writable, self.words.end, limits, random)
        parts: list[str | int] = []
        for span in spans:
            if isinstance(span, ItemSpan):
                parts.append(span.row)
                continue
            text, stop, _ = str(self.words.tokenizer.decode(list(span.tokens))).lstrip().partition("\n")
            parts.append(self._shown(text, mentions))
            if stop:  # a new line begins another's turn
                break
        _, scores = items_of(spans)
        return Speech(parts, scores[: sum(isinstance(part, int) for part in parts)], anything(version.snapshot, rules))

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
        told = list(messages)
        if len(before):
            had: list[str | int] = [HAD]
            for row in before[-self.ranker.max_history :]:
                had += [int(row), ""]
            told[0] = join([*had[:-1], "."], told[0])
        context = spell_contexts([told], version.snapshot.codes, self.layout, self.words)[0]
        return np.concatenate([[self.layout.start], context, self.words.literal(asks)]).astype(np.int64)

    def _shown(self, text: str, mentions: Mentions) -> str:
        """Words of the model as they may be printed: no title of the catalogue, no line of a list, nothing that steers."""
        for mention in reversed(mentions.find(text)):
            if mention.rows:
                text = text[: mention.start] + TAKEN_OUT + text[mention.end :]
        return unlisted(text.replace("\ufffd", ""))


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
