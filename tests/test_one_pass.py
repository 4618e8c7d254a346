"""One-pass recommenders through the main job and the facade: fit, bundle, recommend, evaluate, serve, new and cold items."""

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from quick import QUICK
from worlds import write_llm

from genrec.bundle import read_bundle
from genrec.data.catalogue import Catalogue
from genrec.data.interactions import Interactions
from genrec.data.synthetic import make_shop
from genrec.errors import BundleError, SettingError
from genrec.evaluate_bundle import evaluate_bundle
from genrec.fit import fit
from genrec.models.one_pass.model import OnePassModel
from genrec.recipe import Recipe, load_recipe
from genrec.recommender import Recommender
from genrec.training import one_pass
from genrec.training.teacher import Teacher

Shop = tuple[Catalogue, Interactions]
RECIPES = Path(__file__).parents[1] / "training" / "recipes"
METHODS = ["one_pass", "fused", "rpg", "recgpt", "setrec", "h2rec"]
# The shop is small: fewer and smaller codes, a small network. What makes the method is the recipe's.
SMALL = {
    **{name: value for name, value in QUICK.items() if name != "text.collaborative_width"},
    "model.heads": 2,
    "training.epochs": 8,
    "training.batch_tokens": 512,
}
VOTES_OF_ALL = {"fusion.votes": ["cooccurrence", "texts", "one-pass"]}
SMALLER = {
    "one_pass": {"tokenizer.opq.parts": 4, "tokenizer.opq.bits": 3},
    "fused": {"tokenizer.opq.parts": 4, "tokenizer.opq.bits": 3},
    "rpg": {"tokenizer.opq.parts": 12, "tokenizer.opq.bits": 3, "tokenizer.opq.width": 24},  # long codes, as the paper has
    "recgpt": {"tokenizer.fsq.steps": 50, "tokenizer.fsq.grid": [4, 4]},
    "setrec": {},
    "h2rec": {"tokenizer.rq_kmeans.codebook_size": 8},
}


def recipe_of(method: str) -> Recipe:
    return load_recipe(RECIPES / f"{method}.yaml", SMALL | SMALLER[method])


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, shop: Shop) -> dict[str, Path]:
    """One fitted bundle per shipped recipe."""
    folder = tmp_path_factory.mktemp("one_pass")
    return {method: fit(shop[0].table, shop[1].table, folder / method, recipe_of(method)) for method in METHODS}


@pytest.mark.parametrize("method", METHODS)
def test_a_shipped_recipe_beats_popularity_on_the_shop(method: str, bundles: dict[str, Path]) -> None:
    model, popularity, _ = read_bundle(bundles[method]).metrics["test"]
    assert model["metrics"]["masked"]["ndcg@10"]["mean"] > 1.5 * popularity["metrics"]["masked"]["ndcg@10"]["mean"]


@pytest.mark.parametrize("better", ["with", "without"])
def test_items_are_made_with_or_without_vectors_as_validation_says(
    better: str, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, said = one_pass._validation, []

    def judged(model: OnePassModel, *rest: Any) -> float:
        said.append("with" if "vectors" in model.shape.config.parts else "without")
        return real(model, *rest) + (1.0 if said[-1] == better else 0.0)

    monkeypatch.setattr(one_pass, "_validation", judged)
    changes = SMALL | SMALLER["fused"] | {"training.epochs": 1, "fusion.votes": [], "evaluation.baselines": []}
    chosen = fit(shop[0].table, shop[1].table, tmp_path / "chosen", load_recipe(RECIPES / "fused.yaml", changes))
    assert said == ["with", "without"]
    parts = ["codes", "id", "vectors"] if better == "with" else ["codes", "id"]
    alone = changes | {"one_pass.parts": parts, "one_pass.try_without_vectors": False}
    again = fit(shop[0].table, shop[1].table, tmp_path / "alone", load_recipe(RECIPES / "fused.yaml", alone))
    assert (chosen / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()
    ids = shop[0].item_ids[:3].tolist()
    assert Recommender.load(chosen).recommend([ids], k=5) == Recommender.load(again).recommend([ids], k=5)


@pytest.mark.parametrize("parts", [["vectors"], ["codes", "id"]])
def test_what_has_no_vectors_or_nothing_else_is_not_tried_without_them(parts: list[str]) -> None:
    with pytest.raises(SettingError, match="try_without_vectors needs"):
        load_recipe(RECIPES / "fused.yaml", {"one_pass.parts": parts})


@pytest.mark.parametrize("method", METHODS)
def test_a_bundle_recommends_under_rules_and_explains(method: str, bundles: dict[str, Path], shop: Shop) -> None:
    recommender = Recommender.load(bundles[method])
    ids = shop[0].item_ids.tolist()
    first, new_user = recommender.recommend([ids[:3], []], k=70)
    assert len(first) == len(new_user) == 70
    assert not {item.item_id for item in first} & set(ids[:3])
    assert all(0 >= one.score >= other.score for one, other in itertools.pairwise(first))
    brand = shop[0].table.column("brand")[7].as_py()
    [some] = recommender.recommend([ids[:3]], k=5, where=f'brand == "{brand}"', exclude_item_ids=[ids[7]], explain=True)
    assert some
    assert all(item.fields["brand"] == brand and item.item_id != ids[7] for item in some)
    best = some[0]
    assert best.explanation is not None
    assert best.explanation.score == pytest.approx(best.score, abs=1e-3)
    [capped] = recommender.recommend([ids[:3]], k=6, max_per={"brand": 1})
    assert len({item.fields["brand"] for item in capped}) == len(capped)


@pytest.mark.parametrize("method", METHODS)
def test_an_item_added_by_its_text_can_be_recommended_at_once(method: str, bundles: dict[str, Path], shop: Shop) -> None:
    recommender = Recommender.load(bundles[method])
    weights = {name: value.clone() for name, value in recommender.ranker.model.state_dict().items()}
    twin = shop[0].table.slice(4, 1)
    new = twin.set_column(twin.column_names.index("item_id"), "item_id", pa.array(["new"]))
    recommender.catalogue.add(new)
    [everything] = recommender.recommend([[shop[0].item_ids[4]]], k=81, exclude_seen=False)
    assert "new" in {item.item_id for item in everything}
    [alone] = recommender.recommend([["new"]], k=1, only_item_ids=["new"], exclude_seen=False)
    assert [item.item_id for item in alone] == ["new"]
    assert all((weights[name] == value).all() for name, value in recommender.ranker.model.state_dict().items())
    recommender.catalogue.remove(["new"])
    [after] = recommender.recommend([["new"]], k=81, exclude_seen=False)
    assert "new" not in {item.item_id for item in after}


@pytest.fixture(scope="module")
def before_they_came(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recommender, list[str], list[list[str]], list[str]]:
    """A model fitted without any event of ten items; which they are; and what users did before they took one, and which."""
    catalogue, interactions = make_shop(users=400, items=100, seed=1)
    cold = np.random.default_rng(0).choice(catalogue.item_ids, 10, replace=False).tolist()
    known = ~np.isin(np.array(interactions.table.column("item_id").to_pylist(), object), cold)
    out = tmp_path_factory.mktemp("cold") / "shop"
    fit(catalogue.table, interactions.table.filter(pa.array(known)), out, recipe_of("one_pass"))
    histories, taken = [], []
    for rows in interactions.histories(catalogue).to_lists():
        history = catalogue.item_ids[rows].tolist()
        first = next((place for place, item in enumerate(history) if item in cold), 0)
        if first:
            histories.append(history[:first])
            taken.append(history[first])
    return Recommender.load(out), cold, histories, taken


def test_the_right_one_of_the_cold_items_is_found_by_its_content(before_they_came: tuple) -> None:
    recommender, cold, histories, taken = before_they_came
    assert not recommender.bundle.train_counts[recommender.bundle.catalogue.rows(np.array(cold, object))].any()
    places = [
        [item.item_id for item in items].index(item_id)
        for items, item_id in zip(recommender.recommend(histories, k=10, only_item_ids=cold), taken, strict=True)
    ]
    assert len(places) > 50
    assert np.mean(places) < 3, "4.5 by chance"


def test_cold_items_stand_among_the_others(before_they_came: tuple) -> None:
    recommender, cold, histories, _ = before_they_came
    lists = recommender.recommend(histories, k=10)
    assert any(item.item_id in cold for items in lists for item in items)


@pytest.mark.parametrize("method", ["one_pass", "fused", "rpg"])
def test_evaluating_a_bundle_again_gives_the_numbers_of_its_fit(method: str, bundles: dict[str, Path], shop: Shop) -> None:
    results = evaluate_bundle(bundles[method], shop[1].table, max_questions=60, baselines=False).evaluation.results
    assert results[0].to_dict()["metrics"] == read_bundle(bundles[method]).metrics["test"][0]["metrics"]


def test_the_same_tables_and_seed_give_the_same_weights(bundles: dict[str, Path], shop: Shop, tmp_path: Path) -> None:
    again = fit(shop[0].table, shop[1].table, tmp_path / "again", recipe_of("one_pass"))
    assert (again / "model.safetensors").read_bytes() == (bundles["one_pass"] / "model.safetensors").read_bytes()


def test_a_fit_that_was_killed_goes_on_to_the_same_weights(
    bundles: dict[str, Path], shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, real = [], one_pass._validation

    def killed(*args: object) -> float:
        asked.append(args)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(one_pass, "_validation", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(shop[0].table, shop[1].table, tmp_path / "killed", recipe_of("one_pass"))
    again = fit(shop[0].table, shop[1].table, tmp_path / "killed", recipe_of("one_pass"))
    metrics, expected = read_bundle(again).metrics, read_bundle(bundles["one_pass"]).metrics
    assert len(asked) == 1 + len(expected["validation"]["epochs"]), "three epochs before the kill count"
    assert metrics["validation"] == expected["validation"]
    assert (again / "model.safetensors").read_bytes() == (bundles["one_pass"] / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory, shop: Shop) -> Path:
    """A bundle of several widths, and of a mixture of several states."""
    more = {"one_pass.widths": [8, 16], "one_pass.mixture": 3, "one_pass.mixture_decay": 0.5}
    recipe = load_recipe(RECIPES / "one_pass.yaml", SMALL | SMALLER["one_pass"] | more)
    return fit(shop[0].table, shop[1].table, tmp_path_factory.mktemp("several") / "shop", recipe)


def test_one_bundle_is_served_at_each_of_its_widths(several: Path, shop: Shop, tmp_path: Path) -> None:
    history = shop[0].item_ids[:3].tolist()
    scores, kept = [], []
    for width in (8, 16, 32):
        recommender = Recommender.load(several, width=width)
        [items] = recommender.recommend([history], k=80, exclude_seen=False)
        assert np.exp([item.score for item in items]).sum() == pytest.approx(1, abs=1e-4)
        scores.append(items[0].score)
        kept.append(recommender.ranker.kept_bytes)
    assert len(set(scores)) == 3
    assert kept == [80 * width * 4 for width in (8, 16, 32)]
    [whole] = Recommender.load(several).recommend([history], k=1, exclude_seen=False)
    assert whole[0].score == scores[2], "the whole, where nobody says another"
    copy = tmp_path / "copy"
    shutil.copytree(several, copy)
    serving = json.loads((copy / "serving.json").read_text()) | {"width": 8}
    (copy / "serving.json").write_text(json.dumps(serving))
    assert Recommender.load(copy).recommend([history], k=1, exclude_seen=False)[0][0].score == scores[0]
    assert Recommender.load(copy, width=32).ranker.width == 32


def test_a_bundle_of_a_mixture_keeps_its_weights_and_explains_its_scores(several: Path, shop: Shop) -> None:
    recommender = Recommender.load(several)
    assert recommender.ranker.model.mixture.tolist() == [1, 0.5, 0.25]
    [items] = recommender.recommend([shop[0].item_ids[:4].tolist()], k=3, explain=True)
    for item in items:
        assert item.explanation.score == pytest.approx(item.score, abs=1e-3)
        assert len(item.explanation.history) == 4
    before = read_bundle(several).metrics["test"][0]["metrics"]
    again = evaluate_bundle(several, shop[1].table, max_questions=60, baselines=False).evaluation.results[0]
    assert again.to_dict()["metrics"] == before


def test_a_bundle_of_several_rounds_answers_as_its_fit_did(shop: Shop, tmp_path: Path) -> None:
    more = {"one_pass.rounds": 2, "one_pass.round_items": 4, "one_pass.sampled": 0, "training.epochs": 4}
    recipe = load_recipe(RECIPES / "one_pass.yaml", SMALL | SMALLER["one_pass"] | more)
    out = fit(shop[0].table, shop[1].table, tmp_path / "rounds", recipe)
    results = evaluate_bundle(out, shop[1].table, max_questions=60, baselines=False).evaluation.results
    assert results[0].to_dict()["metrics"] == read_bundle(out).metrics["test"][0]["metrics"]
    ids = shop[0].item_ids.tolist()
    [items] = Recommender.load(out).recommend([ids[:3]], k=12, exclude_item_ids=[ids[7]], explain=True)
    assert len({item.item_id for item in items} - {*ids[:3], ids[7]}) == 12
    assert all(item.explanation.score == pytest.approx(item.score, abs=1e-3) for item in items[:4]), "those of the first round"


def test_a_width_beats_popularity_and_is_named_in_its_evaluation(several: Path, shop: Shop) -> None:
    popularity = read_bundle(several).metrics["test"][1]["metrics"]["masked"]["ndcg@10"]["mean"]
    for width in (8, 16):
        evaluation = evaluate_bundle(several, shop[1].table, max_questions=100, baselines=False, width=width).evaluation
        assert evaluation.about["width"] == str(width)
        assert evaluation.results[0].to_dict()["metrics"]["masked"]["ndcg@10"]["mean"] > 1.5 * popularity


def test_a_width_that_the_bundle_does_not_have_is_refused(several: Path, bundles: dict[str, Path], bundle: Path) -> None:
    with pytest.raises(SettingError, match="one that was trained, 8 or 16 or 32, got 12"):
        Recommender.load(several, width=12)
    with pytest.raises(SettingError, match="one that was trained, 32, got 8"):
        Recommender.load(bundles["rpg"], width=8)
    with pytest.raises(SettingError, match="width is of one-pass models .* holds a language model"):
        Recommender.load(bundle, width=8)


def test_what_is_of_the_beam_search_is_refused(bundles: dict[str, Path], shop: Shop) -> None:
    recommender = Recommender.load(bundles["rpg"])
    with pytest.raises(SettingError, match="this bundle scores every item: leave it out, got 20"):
        recommender.recommend([[]], beam_width=20)
    for asked in ({"beam_width": 5}, {"unconstrained": True}):
        with pytest.raises(SettingError, match="are of the beam search"):
            evaluate_bundle(bundles["rpg"], shop[1].table, max_questions=5, baselines=False, **asked)
    with pytest.raises(BundleError, match="holds a one-pass model, which is no language model"):
        recommender.bundle.load_model()


def test_a_fusion_lies_in_the_bundle_with_what_was_chosen(bundles: dict[str, Path]) -> None:
    metrics = read_bundle(bundles["fused"]).metrics
    assert set(metrics["fusion"]["weights"]) == {"cooccurrence", "texts"}
    assert metrics["fusion"]["best_ndcg@10"] >= metrics["validation"]["best_ndcg@10"] - 1e-6
    assert Recommender.load(bundles["fused"]).ranker.fusion is not None
    assert read_bundle(bundles["one_pass"]).metrics["fusion"] is None
    assert Recommender.load(bundles["one_pass"]).ranker.fusion is None


@pytest.fixture(scope="module")
def generating(tmp_path_factory: pytest.TempPathFactory, bundles: dict[str, Path], shop: Shop) -> Path:
    """A language model whose candidates are put in order by co-occurrence and a one-pass model too."""
    recipe = load_recipe(overrides=QUICK | VOTES_OF_ALL | {"fusion.scorer": str(bundles["one_pass"])})
    return fit(shop[0].table, shop[1].table, tmp_path_factory.mktemp("fused") / "shop", recipe)


def test_a_language_model_generates_and_a_one_pass_model_scores(
    generating: Path, bundles: dict[str, Path], shop: Shop, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(generating, moved)  # the bundle is whole: nothing of the scorer's own folder is needed
    recommender = Recommender.load(moved)
    metrics = recommender.bundle.metrics
    assert set(metrics["fusion"]["weights"]) == {"cooccurrence", "texts", "one-pass"}
    assert metrics["fusion"]["weights"]["one-pass"] + metrics["fusion"]["weights"]["cooccurrence"] > 0
    ids = shop[0].item_ids.tolist()
    recommender.catalogue.add(shop[0].table.slice(4, 1).set_column(0, "item_id", pa.array(["new"])))
    items, of_a_newcomer = recommender.recommend([ids[:3], []], k=20, explain=True)
    assert len(items) == len(of_a_newcomer) == 20
    assert all(0 >= one.score >= other.score for one, other in itertools.pairwise(items))
    results = evaluate_bundle(generating, shop[1].table, max_questions=60, baselines=False).evaluation.results
    assert results[0].to_dict()["metrics"] == metrics["test"][0]["metrics"]


@pytest.mark.parametrize("name", ["fused", "bundle"])
def test_a_language_model_is_taught_by_another_bundle(
    name: str, bundles: dict[str, Path], bundle: Path, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a one-pass model without its votes, or by a language model: it is another than one that nobody taught."""
    asked: list[Any] = []
    lists = Teacher.lists
    monkeypatch.setattr(Teacher, "lists", lambda self, *more: asked.append(self.ranker) or lists(self, *more))
    teaching = bundle if name == "bundle" else bundles[name]
    recipe = load_recipe(overrides=QUICK | {"training.teacher": str(teaching)})
    out = fit(shop[0].table, shop[1].table, tmp_path / "out", recipe)
    with_it, alone = (read_bundle(folder) for folder in (out, bundle))
    assert [ranker.fusion for ranker in asked] == [None]
    assert with_it.manifest["made_with"] == {"training.teacher": read_bundle(teaching).hash}
    assert {path.name for path in out.iterdir()} == {path.name for path in bundle.iterdir()}, "nothing of it is kept"
    assert with_it.metrics["weights"] == alone.metrics["weights"]
    assert with_it.metrics["validation"]["epochs"] != alone.metrics["validation"]["epochs"]
    assert len(Recommender.load(out).recommend([[]], k=5)[0]) == 5


@pytest.mark.parametrize("pretrained", [False, True])
def test_the_shipped_recipe_is_taught_and_so_is_lora(
    pretrained: bool, bundles: dict[str, Path], shop: Shop, tmp_path: Path
) -> None:
    recipe = RECIPES / "taught.yaml"
    asked = QUICK | {"training.teacher": str(bundles["fused"]), "tokenizer.rq_kmeans.codebook_size": 8}
    if pretrained:
        llm = write_llm(tmp_path / "llm", shop[0].table.column("title").to_pylist())
        asked |= {"model.pretrained": str(llm), "model.lora_rank": 4, "model.new_rows": "text"}
    recommender = Recommender.load(fit(shop[0].table, shop[1].table, tmp_path / "out", load_recipe(recipe, asked)))
    [items] = recommender.recommend([shop[0].item_ids[:3].tolist()], k=10)
    assert len({item.item_id for item in items}) == 10
    assert recommender.bundle.metrics["validation"]["best_ndcg@10"] > 0


def test_where_codes_begin_changes_what_is_learned(bundle: Path, shop: Shop, tmp_path: Path) -> None:
    out = fit(shop[0].table, shop[1].table, tmp_path / "out", load_recipe(overrides=QUICK | {"model.new_rows": "vectors"}))
    begun, alone = (read_bundle(folder).metrics["validation"]["epochs"] for folder in (out, bundle))
    assert begun[0]["eval_ndcg@10"] != alone[0]["eval_ndcg@10"]


def test_what_the_codes_of_a_teacher_learned_from_is_looked_at(
    bundles: dict[str, Path], shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = read_bundle(bundles["one_pass"])
    elsewhere = replace(known, manifest=known.manifest | {"codes_learned_from": "other events"})
    monkeypatch.setattr("genrec.fit.read_bundle", lambda _: elsewhere)
    monkeypatch.setattr("genrec.fit.report_leaks", lambda leaks: (_ for _ in ()).throw(AssertionError([x.kind for x in leaks])))
    recipe = load_recipe(overrides=QUICK | {"training.teacher": str(bundles["one_pass"])})
    with pytest.raises(AssertionError, match="other-events"):
        fit(shop[0].table, shop[1].table, tmp_path / "out", recipe)


def test_a_fit_that_was_killed_does_not_go_on_with_another_teacher(
    bundles: dict[str, Path], shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teaching = tmp_path / "teacher"
    shutil.copytree(bundles["fused"], teaching)
    recipe = load_recipe(overrides=QUICK | {"training.teacher": str(teaching)})
    with monkeypatch.context() as patch:
        patch.setattr("genrec.fit.evaluate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fit(shop[0].table, shop[1].table, tmp_path / "out", recipe)
    shutil.rmtree(teaching)
    shutil.copytree(bundles["one_pass"], teaching)
    with pytest.raises(BundleError, match="unfinished"):
        fit(shop[0].table, shop[1].table, tmp_path / "out", recipe)


@pytest.mark.parametrize("setting", ["fusion.scorer", "training.teacher"])
def test_a_bundle_that_may_know_the_answers_is_refused(
    setting: str, bundles: dict[str, Path], bundle: Path, shop: Shop, tmp_path: Path
) -> None:
    def asked(folder: Path, **more: str) -> None:
        votes = VOTES_OF_ALL if setting == "fusion.scorer" else {}
        recipe = load_recipe(overrides=QUICK | votes | {setting: str(folder)} | more)
        fit(shop[0].table, shop[1].table, tmp_path / "out", recipe)

    with pytest.raises(SettingError, match=rf"of {setting} was fitted on other tables or another split"):
        asked(bundles["one_pass"], **{"data.split": "global-time"})
    with pytest.raises(BundleError, match="nowhere"):
        asked(tmp_path / "nowhere")
    if setting == "fusion.scorer":
        with pytest.raises(SettingError, match="must be the bundle of a one-pass model"):
            asked(bundle)


def test_vectors_lie_in_the_bundle_only_where_the_model_reads_them(bundles: dict[str, Path], tmp_path: Path) -> None:
    assert read_bundle(bundles["one_pass"]).vectors is not None
    assert read_bundle(bundles["rpg"]).vectors is None
    broken = tmp_path / "broken"
    shutil.copytree(bundles["one_pass"], broken)
    (broken / "items" / "vectors.safetensors").unlink()
    with pytest.raises(BundleError, match=r"vectors\.safetensors"):
        read_bundle(broken)


def test_the_card_and_the_config_say_what_it_is(bundles: dict[str, Path]) -> None:
    assert "scores every item of its catalogue" in (bundles["setrec"] / "README.md").read_text()
    assert json.loads((bundles["setrec"] / "config.json").read_text())["model_type"] == "genrec-one-pass"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"one_pass.loss": "codes"}, "has settings in one_pass, but model.architecture is 'decoder'"),
        ({"model.architecture": "one-pass", "model.pretrained": "some/llm"}, "model.pretrained is of language models"),
        ({"model.architecture": "one-pass", "training.distillation": 0.5}, "training.distillation is of language models"),
        ({"model.architecture": "one-pass", "training.precision": "bf16"}, "training.precision is of language models"),
        (
            {"model.architecture": "one-pass", "one_pass.shared_codes": True},
            "one_pass.shared_codes needs codes that mean the same",
        ),
        ({"fusion.votes": ["one-pass"]}, "need each other"),
        ({"fusion.scorer": "runs/one_pass"}, "need each other"),
        (
            {"model.architecture": "one-pass", "fusion.votes": ["one-pass"], "fusion.scorer": "a"},
            "fusion.scorer is of language models",
        ),
        (
            {"model.architecture": "one-pass", "fusion.votes": ["texts"], "one_pass.rounds": 2},
            "one_pass.rounds above 1 have several",
        ),
        ({"model.architecture": "two-pass"}, "model.architecture must be"),
        ({"model.architecture": "one-pass", "one_pass.widths": [512]}, "one_pass.widths must be below model.hidden_size"),
    ],
)
def test_recipes_that_ask_for_both_or_neither_are_refused(overrides: dict, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        load_recipe(overrides=overrides)
