"""`genrec adapt`: a model that knows items by their texts recommends in a shop that it never saw."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from quick import QUICK

from genrec.adapt import adapt, check_text_alone
from genrec.bundle import USER_ADAPTER, USER_INDEX, Bundle, read_bundle
from genrec.cli import main
from genrec.data.catalogue import Catalogue
from genrec.data.interactions import Interactions
from genrec.data.shops import join_shops
from genrec.data.synthetic import make_shop, write_shop
from genrec.data.writers import write_table
from genrec.embedding.text import render
from genrec.errors import BundleError, DataError, SettingError
from genrec.evaluate_bundle import evaluate_bundle
from genrec.evaluation.baselines.neighbours import text_neighbours
from genrec.fit import fit
from genrec.models.one_pass.config import OnePassConfig
from genrec.recipe import Recipe, build, load_recipe
from genrec.recommender import Recommender
from genrec.training.fusion import FusionConfig

Shop = tuple[Catalogue, Interactions]
RECIPE = Path(__file__).parents[1] / "training" / "recipes" / "zero_shot.yaml"
SMALL = {name: value for name, value in QUICK.items() if name != "text.collaborative_width"} | {
    "text.template": "auto",
    "tokenizer.rq_kmeans.codebook_size": 8,
    "one_pass.sampled": 64,
    "training.epochs": 8,
    "training.batch_tokens": 512,
    "evaluation.max_questions": 200,
}


@pytest.fixture(scope="module")
def shops() -> dict[str, Shop]:
    return {"first": make_shop(users=200, items=80, seed=1), "second": make_shop(users=200, items=80, seed=2)}


@pytest.fixture(scope="module")
def unseen() -> Shop:
    return make_shop(users=200, items=90, seed=3)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory, shops: dict[str, Shop]) -> Path:
    """A bundle of two shops, of the shipped recipe."""
    return fit(*join_shops(shops), tmp_path_factory.mktemp("shops") / "fitted", load_recipe(RECIPE, SMALL))


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory, fitted: Path, unseen: Shop) -> Path:
    return adapt(fitted, unseen[0].table, tmp_path_factory.mktemp("shops") / "adapted")


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory, shops: dict[str, Shop]) -> Path:
    """A decoder over codes of texts, with a suffix level, a user index and a user adapter."""
    small = {"text.collaborative_width": 0, "evaluation.baselines": [], "model.user_index": [4], "model.user_adapter": "mean"}
    recipe = load_recipe(overrides=QUICK | small)
    return fit(*join_shops(shops), tmp_path_factory.mktemp("shops") / "decoder", recipe)


def test_a_model_recommends_in_a_shop_that_it_never_saw_better_than_popularity(adapted: Path, unseen: Shop) -> None:
    model, popularity, *_ = evaluate_bundle(adapted, unseen[1].table).evaluation.results
    assert model.metrics["masked"]["ndcg@10"].mean > 3 * popularity.metrics["masked"]["ndcg@10"].mean


def test_recgpt_is_adapted_too(shops: dict[str, Shop], unseen: Shop, tmp_path: Path) -> None:
    small = {name: value for name, value in SMALL.items() if not name.startswith(("tokenizer", "one_pass"))}
    recipe = load_recipe(RECIPE.with_name("recgpt.yaml"), small | {"tokenizer.fsq.steps": 50, "tokenizer.fsq.grid": [4, 4]})
    fitted = fit(*join_shops(shops), tmp_path / "fitted", recipe)
    model, popularity, *_ = evaluate_bundle(
        adapt(fitted, unseen[0].table, tmp_path / "new"), unseen[1].table
    ).evaluation.results
    assert model.metrics["masked"]["ndcg@10"].mean > 1.5 * popularity.metrics["masked"]["ndcg@10"].mean


def test_nothing_is_learned_and_no_item_is_known(fitted: Path, adapted: Path, unseen: Shop) -> None:
    bundle = read_bundle(adapted)
    for name in ["model.safetensors", "item_tokenizer", "embedder/encoder.json", "embedder/encoder.safetensors"]:
        for path in [fitted / name, *(fitted / name).rglob("*")]:
            if path.is_file():
                assert (adapted / path.relative_to(fitted)).read_bytes() == path.read_bytes()
    assert bundle.catalogue.table.equals(unseen[0].table)
    assert not bundle.train_counts.any()
    assert bundle.manifest["adapted_from"]["bundle"] == read_bundle(fitted).hash
    assert bundle.manifest["data"]["interactions"] is None
    assert "Nothing yet on this catalogue" in (adapted / "README.md").read_text()


def test_texts_are_centred_on_their_own_shop(fitted: Path, adapted: Path, unseen: Shop) -> None:
    embedder, _ = read_bundle(adapted).load_encoders()
    raw = embedder.encoder.encode(render(unseen[0], embedder.template))
    np.testing.assert_allclose(embedder.arrays["text_mean"], raw.mean(axis=0), atol=1e-6)
    assert not np.allclose(embedder.arrays["text_mean"], read_bundle(fitted).load_encoders()[0].arrays["text_mean"], atol=1e-2)


def test_an_item_that_comes_later_gets_the_codes_and_the_vector_of_one_that_was_there(adapted: Path, unseen: Shop) -> None:
    bundle, live = read_bundle(adapted), Recommender.load(adapted).catalogue
    again = pa.array([f"{item_id} again" for item_id in unseen[0].item_ids])
    snapshot = live.add(unseen[0].table.set_column(0, "item_id", again)).snapshot
    np.testing.assert_array_equal(snapshot.codes[len(again) :], bundle.codes.codes)
    assert snapshot.vectors is not None
    assert bundle.vectors is not None
    np.testing.assert_allclose(snapshot.vectors[len(again) :], bundle.vectors, atol=1e-6)


def test_the_order_of_the_items_table_changes_no_code_and_no_recommendation(
    fitted: Path, adapted: Path, unseen: Shop, tmp_path: Path
) -> None:
    order = np.random.default_rng(0).permutation(len(unseen[0]))
    other = Recommender.load(adapt(fitted, unseen[0].table.take(pa.array(order)), tmp_path / "shuffled"))
    one = Recommender.load(adapted)
    np.testing.assert_array_equal(other.bundle.codes.codes, one.bundle.codes.codes[order])
    history = unseen[0].item_ids[:3].tolist()
    lists = [[item.item_id for item in found.recommend([history])[0]] for found in (one, other)]
    assert lists[0] == lists[1]


def test_items_with_the_same_text_have_the_same_score_and_the_tie_rule_is_their_id(
    fitted: Path, unseen: Shop, tmp_path: Path
) -> None:
    table = unseen[0].table
    twins = pa.concat_tables([table.slice(7, 1).set_column(0, "item_id", pa.array([name])) for name in ("zz", "aa", "mm")])
    recommender = Recommender.load(adapt(fitted, pa.concat_tables([table, twins]), tmp_path / "twins"))
    [found] = recommender.recommend([[table["item_id"][3].as_py()]], only_item_ids=["zz", "mm", "aa"])
    assert [item.score for item in found] == pytest.approx([found[0].score] * 3, abs=1e-5)
    by_id = sorted(recommender.bundle.catalogue.item_ids)
    assert [by_id[rank] for rank in recommender.bundle.tie_rank] == recommender.bundle.catalogue.item_ids.tolist()


def test_the_shop_changes_while_it_runs(adapted: Path, unseen: Shop) -> None:
    recommender = Recommender.load(adapted)
    ids = unseen[0].item_ids.tolist()
    twin = unseen[0].table.slice(4, 1).set_column(0, "item_id", pa.array(["new"]))
    recommender.catalogue.add(twin)
    recommender.ranker.fusion = None  # an item that came later has no votes, its twin may have
    [found] = recommender.recommend([ids[:2]], only_item_ids=["new", ids[4]])
    assert found[0].score == pytest.approx(found[1].score, abs=1e-5)
    recommender.catalogue.remove([ids[4]])
    [found] = recommender.recommend([ids[:2]], k=91)
    assert "new" in {item.item_id for item in found}
    assert ids[4] not in {item.item_id for item in found}


def test_evaluating_in_a_new_shop_is_no_leak_and_says_that_it_is_zero_shot(
    adapted: Path, unseen: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "genrec"):
        report = evaluate_bundle(adapted, unseen[1].table, strict=True, max_questions=60, baselines=False)
    assert all(leak.inherent for leak in report.leaks)
    assert "Zero-shot: the model was fitted elsewhere" in caplog.text
    # Popularity is that of this shop's training part, where the bundle's own counts are all zero.
    assert report.lists["genrec"].average_popularity > 1


def test_items_that_the_fit_knew_by_their_text_are_counted(
    fitted: Path, adapted: Path, shops: dict[str, Shop], tmp_path: Path
) -> None:
    assert read_bundle(adapted).manifest["adapted_from"]["known_texts"] == 0
    again = read_bundle(adapt(fitted, shops["second"][0].table, tmp_path / "again"))
    assert again.manifest["adapted_from"]["known_texts"] == 80


def test_what_was_adapted_can_be_adapted_and_remembers_the_fit(
    fitted: Path, adapted: Path, unseen: Shop, tmp_path: Path
) -> None:
    twice = read_bundle(adapt(adapted, unseen[0].table, tmp_path / "twice"))
    assert twice.manifest["adapted_from"]["fitted_on"] == read_bundle(fitted).manifest["data"]
    np.testing.assert_array_equal(twice.codes.codes, read_bundle(adapted).codes.codes)


def test_columns_that_a_shop_lacks_are_left_out_of_its_texts(fitted: Path, unseen: Shop, tmp_path: Path) -> None:
    table = unseen[0].table.select(["item_id", "title", "price"])
    bundle = read_bundle(adapt(fitted, table, tmp_path / "few"))
    assert bundle.load_encoders()[0].template == "{title} | {price}"
    assert evaluate_bundle(bundle.folder, unseen[1].table, max_questions=20).evaluation.results[0].questions == 20


def test_a_shop_with_other_columns_says_how_its_items_are_written(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_shop(tmp_path, users=60, items=30, seed=5)
    for name in ("items.csv", "interactions.csv"):
        text = (tmp_path / name).read_text().replace("item_id", "sku", 1).replace("user_id", "who", 1)
        for column in ("title", "brand", "category", "price", "description"):
            text = text.replace(f'"{column}"', f'"its_{column}"', 1)
        (tmp_path / name).write_text(text)
    given = [
        "adapt",
        str(fitted),
        "--items",
        str(tmp_path / "items.csv"),
        "--columns",
        "item_id=sku",
        "--columns",
        "user_id=who",
    ]
    out = tmp_path / "out"
    assert main([*given, "--out", str(out)]) == 2
    assert "none of these columns" in capsys.readouterr().err
    assert main([*given, "--out", str(out), "--template", "{its_title}, {its_brand}"]) == 0
    assert main(["evaluate", str(out), "--interactions", str(tmp_path / "interactions.csv"), "--no-baselines"]) == 0
    assert main([*given, "--out", str(out)]) == 2
    assert "is a file, or not empty. Choose a new folder" in capsys.readouterr().err


def test_items_without_any_text_are_told(fitted: Path, unseen: Shop, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    empty = pa.table({"item_id": ["x", "y", "z"], "title": ["Hair Oil 100 ml", "", None]})
    adapt(fitted, empty, tmp_path / "empty")
    assert "2 of 3 items have no text in '{title}'" in caplog.text


def test_a_language_model_is_adapted_where_its_codes_come_from_texts(
    language_model: Path, unseen: Shop, tmp_path: Path
) -> None:
    bundle = read_bundle(adapt(language_model, unseen[0].table, tmp_path / "adapted"))
    assert (bundle.folder / "model.safetensors").read_bytes() == (language_model / "model.safetensors").read_bytes()
    assert bundle.codes.sizes == read_bundle(language_model).codes.sizes
    assert len(np.unique(bundle.codes.codes, axis=0)) == len(unseen[0])
    ids = unseen[0].item_ids.tolist()
    [found] = Recommender.load(bundle.folder).recommend([ids[:2]], k=5)
    assert {item.item_id for item in found} <= set(ids[2:])
    for path in (USER_INDEX, USER_ADAPTER):
        assert (bundle.folder / path).read_bytes() == (language_model / path).read_bytes(), path
    assert (
        evaluate_bundle(bundle.folder, unseen[1].table, max_questions=20, baselines=False).evaluation.results[0].questions == 20
    )


def test_more_alike_items_than_the_model_can_tell_apart_are_refused(language_model: Path, unseen: Shop, tmp_path: Path) -> None:
    room = read_bundle(language_model).codes.sizes[-1]
    row = unseen[0].table.slice(0, 1)
    alike = pa.concat_tables([row.set_column(0, "item_id", pa.array([f"i{n}"])) for n in range(room + 1)])
    with pytest.raises(DataError, match=f"the suffix level holds {room}"):
        adapt(language_model, alike, tmp_path / "alike")
    assert not (tmp_path / "alike").exists()


def with_recipe(bundle: Bundle, **one_pass: object) -> Recipe:
    recipe = build(Recipe, bundle.manifest["recipe"], "")
    return replace(recipe, one_pass=OnePassConfig(**one_pass)) if one_pass else recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"one_pass": {"identifier": "pooled"}}, "learned a vector for each item .* one_pass.parts without id"),
        ({"one_pass": {"identifier": "dual"}}, "Fit with the identifier 'pooled' or 'codes'"),
        ({"policy": "id"}, "The last code of .* names the item .*'id'.* Fit with 'shared'"),
        ({"policy": "hash-64"}, "names the item .*'hash-64'"),
        ({"users": 50}, "learned who its users are .* Fit with model.user_tokens 0"),
        ({"own": "vectors.parquet"}, "have vectors of their own .*, which no text can replace. Fit without them"),
    ],
)
def test_a_model_that_needs_more_than_texts_is_refused(fitted: Path, change: dict, message: str) -> None:
    bundle = read_bundle(fitted)
    embedder, _ = bundle.load_encoders()
    embedder.config = replace(embedder.config, item_vectors=change.get("own", ""))
    recipe = with_recipe(bundle, **change.get("one_pass", {}))
    bundle = replace(
        bundle,
        codes=replace(bundle.codes, policy=change.get("policy", "shared")),
        settings=replace(bundle.settings, users=change.get("users", 0)),
    )
    with pytest.raises(SettingError, match=message):
        check_text_alone(bundle, recipe, embedder)


def test_votes_of_texts_are_those_of_the_new_items(shops: dict[str, Shop], unseen: Shop, tmp_path: Path) -> None:
    voted = fit(*join_shops(shops), tmp_path / "voted", load_recipe(RECIPE, SMALL | {"fusion.votes": ["texts"]}))
    there = Recommender.load(adapt(voted, unseen[0].table, tmp_path / "there"))
    before, now = Recommender.load(voted).ranker.fusion, there.ranker.fusion
    assert before is not None
    assert now is not None
    assert now.chosen == before.chosen
    texts = render(unseen[0], there.bundle.load_encoders()[0].template)
    assert (now.matrices["texts"] != text_neighbours(texts, 60)).nnz == 0
    history, heavy = unseen[0].item_ids[:1].tolist(), {"texts": 1000.0}
    there.ranker.fusion = replace(now, chosen=replace(now.chosen, weights=heavy))
    nearest = unseen[0].item_ids[now.matrices["texts"][0].toarray().argmax()]
    assert there.recommend([history], k=1)[0][0].item_id == nearest


def test_votes_of_the_old_users_are_refused(fitted: Path) -> None:
    bundle = read_bundle(fitted)
    recipe = replace(with_recipe(bundle), fusion=FusionConfig(("cooccurrence", "texts")))
    with pytest.raises(SettingError, match=r"of its own users\. Fit with fusion\.votes \[texts\], or without"):
        check_text_alone(bundle, recipe, bundle.load_encoders()[0])


def test_a_bundle_that_knows_what_people_take_together_is_refused(bundle: Path, unseen: Shop, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="Fit with text.collaborative_width 0, as training/recipes/zero_shot.yaml"):
        adapt(bundle, unseen[0].table, tmp_path / "no")


def test_a_folder_that_is_no_bundle_or_one_item_is_refused(fitted: Path, unseen: Shop, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a bundle"):
        adapt(tmp_path, unseen[0].table, tmp_path / "no")
    write_table(unseen[0].table.slice(0, 1), tmp_path / "one.parquet")
    with pytest.raises(DataError, match="at least 2 items"):
        adapt(fitted, tmp_path / "one.parquet", tmp_path / "no")
