"""Speaking with random models: only allowed items, only words between them, and each step the likeliest there is."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import ALL, MAX_HISTORY, catalogues, make_model

from genrec.decoding.diversity import Cap
from genrec.decoding.ranker import BeamRanker
from genrec.decoding.snapshot import Rules, Snapshot
from genrec.decoding.speak import ItemSpan, Limits, Span, WordSpan, anything, items_of, speak
from genrec.errors import SettingError
from genrec.models.tokens import TokenLayout

WORDS = 9  # of the vocabulary, before the codes; 0 is the end
END = 0
CONTROL = [0, 1, 2]  # end, start, and a token that steers
SLACK = 1e-3  # between the search with a cache and one without


def talker(sizes: tuple[int, ...], codes: np.ndarray, seed: int, family: str) -> BeamRanker:
    layout = TokenLayout(WORDS, sizes, 1, 0)
    model = make_model(family, layout.vocabulary_size + 2, seed)  # two rows behind the codes that mean nothing
    return BeamRanker(model, layout, Snapshot.of(codes, sizes), ALL, MAX_HISTORY)


def writable(ranker: BeamRanker, words: list[int] | None = None) -> np.ndarray:
    may = np.zeros(ranker.model.get_output_embeddings().weight.shape[0], bool)
    may[[word for word in range(WORDS) if word not in CONTROL] if words is None else words] = True
    return may


def log_probs(ranker: BeamRanker, prompt: np.ndarray, written: list[int]) -> torch.Tensor:
    """Of all tokens at each place of the answer and behind it, by one pass without a cache: [1 + written, V]."""
    model = ranker.model
    with torch.no_grad():
        if model.config.is_encoder_decoder:
            start = model.config.decoder_start_token_id
            logits = model(torch.tensor([prompt.tolist()]), decoder_input_ids=torch.tensor([[start, *written]])).logits[0]
        else:
            logits = model(torch.tensor([[*prompt.tolist(), *written]])).logits[0, len(prompt) - 1 :]
    return logits.double().log_softmax(-1)


def tokens_of(ranker: BeamRanker, span: Span) -> list[int]:
    if isinstance(span, WordSpan):
        return list(span.tokens)
    return ranker.layout.to_tokens(ranker.snapshot.codes[span.row]).tolist()


@st.composite
def worlds(draw: st.DrawFn) -> tuple[BeamRanker, np.ndarray, np.ndarray, np.ndarray, np.ndarray, Limits]:
    sizes, codes = draw(catalogues(most=12))
    family = draw(st.sampled_from(["qwen3", "gpt2", "t5"]))
    ranker = talker(sizes, codes, draw(st.integers(0, 5)), family)
    items = st.lists(st.integers(0, len(codes) - 1), max_size=3)
    prompt = [1, *draw(st.lists(st.integers(3, WORDS - 1), max_size=5))]
    for row in draw(items)[:1]:
        prompt += ranker.layout.to_tokens(codes[row]).tolist()
    mask = np.array(draw(st.lists(st.booleans(), min_size=len(codes), max_size=len(codes))))
    limits = Limits(draw(st.integers(1, 8)), draw(st.integers(0, 4)), ALL, draw(st.sampled_from([0.0, 1.0, 5.0])))
    # The fewer words there are, the more often items come.
    words = draw(st.lists(st.integers(3, WORDS - 1), min_size=1, max_size=5, unique=True))
    return ranker, np.array(prompt), mask, np.array(draw(items), np.int64), writable(ranker, words), limits


@settings(max_examples=100)
@given(worlds())
def test_items_are_allowed_and_said_once_and_between_them_are_words_alone(world: tuple) -> None:
    ranker, prompt, mask, excluded, may, limits = world
    rules = Rules(ranker.snapshot.bitmap(mask), np.unique(excluded))
    allowed = set(np.flatnonzero(mask).tolist()) - set(excluded.tolist())
    random = torch.Generator().manual_seed(0)
    spans = speak(ranker, prompt, ranker.snapshot, rules, may, END, limits, random)
    rows, _ = items_of(spans)
    assert set(rows.tolist()) <= allowed
    assert len(set(rows.tolist())) == len(rows) <= limits.items
    words = [token for span in spans if isinstance(span, WordSpan) for token in span.tokens]
    assert len(words) <= limits.words
    assert may[words].all()
    assert anything(ranker.snapshot, rules) == bool(allowed)
    if not allowed:
        assert all(isinstance(span, WordSpan) for span in spans)
    # Each step, looked at again without cache and beams.
    written = [token for span in spans for token in tokens_of(ranker, span)]
    truth, place, said = log_probs(ranker, prompt, written), 0, set()
    could_write = torch.from_numpy(may | (np.arange(len(may)) == END))
    layout = ranker.layout
    for span in [*spans, None]:
        for token in span.tokens if isinstance(span, WordSpan) else [None]:
            here = truth[place]
            opens = here[layout.base : layout.base + layout.sizes[0]].logsumexp(0)
            could = len(said) < limits.items and bool(allowed - said)
            best_word = here[could_write].max()
            if isinstance(span, ItemSpan):
                assert could
                assert limits.temperature or opens > best_word - SLACK
                best = max(score_of(ranker, prompt, written[:place], row) for row in allowed - said)
                own = sum(float(truth[place + n, code]) for n, code in enumerate(tokens_of(ranker, span)))
                assert span.score == pytest.approx(own, abs=SLACK)
                assert own > best - SLACK
                said.add(span.row)
                place += layout.levels
            elif not limits.temperature and (token is not None or len(words) < limits.words):
                chosen = END if token is None else token
                assert here[chosen] > best_word - SLACK
                assert not could or here[chosen] > opens - SLACK
            place += token is not None


def score_of(ranker: BeamRanker, prompt: np.ndarray, written: list[int], row: int) -> float:
    codes = ranker.layout.to_tokens(ranker.snapshot.codes[row]).tolist()
    truth = log_probs(ranker, prompt, [*written, *codes])[len(written) :]
    return sum(float(truth[n, code]) for n, code in enumerate(codes))


def test_a_model_that_only_wants_items_says_all_that_are_allowed_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.array([[a, b] for a in range(3) for b in range(3)])
    ranker = talker((3, 3), codes, 0, "qwen3")
    only = np.zeros(ranker.model.get_output_embeddings().weight.shape[0], bool)  # no word can be written
    mask = np.arange(9) < 4
    log_probs = type(ranker.head).log_probs

    def endless(self: object, hidden: torch.Tensor, first: int, size: int) -> torch.Tensor:
        found = log_probs(self, hidden, first, size).clone()
        if first <= 8 < first + size:
            found[..., 8 - first] = -1e4  # the end wins only where nothing else may come
        return found

    monkeypatch.setattr(type(ranker.head), "log_probs", endless)
    for limits in (Limits(items=9), Limits()):
        spans = speak(ranker, np.array([1, 4]), ranker.snapshot, Rules(ranker.snapshot.bitmap(mask)), only, 8, limits)
        rows, _ = items_of(spans)
        assert len(rows) == len(spans)
        assert sorted(rows.tolist()) == [0, 1, 2, 3]


def test_limits_that_cannot_be_are_refused() -> None:
    temperatures = (-1.0, float("nan"), float("inf"), 1e-39, 1e-300, "1", True, None)
    for wrong in ({"words": 0}, {"items": -1}, {"beam_width": 0}, *({"temperature": one} for one in temperatures)):
        with pytest.raises(SettingError, match=next(iter(wrong))):
            Limits(**wrong)
    ranker = talker((2,), np.array([[0], [1]]), 0, "qwen3")
    with pytest.raises(SettingError, match="cannot be kept while speaking"):
        speak(ranker, np.array([1]), ranker.snapshot, Rules(caps=[Cap(np.zeros(2, np.int64), 1, "brand")]), writable(ranker),
              END, Limits())  # fmt: skip
