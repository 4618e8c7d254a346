"""The main job, end to end: two tables in, a bundle out; killed, resumed, refused."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from quick import QUICK
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from worlds import write_llm

from genrec import fit as fit_module
from genrec.bundle import read_bundle
from genrec.codes import diff
from genrec.data import mapped
from genrec.data.catalogue import Catalogue
from genrec.data.interactions import Interactions
from genrec.data.synthetic import write_shop
from genrec.errors import BundleError, DataError, GenrecError, MissingDependencyError, SettingError
from genrec.evaluate_bundle import evaluate_bundle
from genrec.evaluation.baselines import TRAINED
from genrec.evaluation.baselines.sequence_network import SequenceConfig
from genrec.evaluation.baselines.sequence_ranker import SequenceRanker
from genrec.evaluation.leaks import INHERENT
from genrec.fit import evaluate_baselines, fit
from genrec.recipe import Recipe, load_recipe
from genrec.recommender import Recommender
from genrec.tables import read_tables, split_histories
from tokenizers import Tokenizer, models

Shop = tuple[Catalogue, Interactions]


def weights_hash(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_the_model_beats_popularity_on_the_shop(tmp_path: Path) -> None:
    write_shop(tmp_path, users=800, items=100, seed=3)
    longer = load_recipe(
        overrides=QUICK | {"training.epochs": 10, "training.batch_tokens": 1024, "evaluation.max_questions": 0}
    )
    fit(tmp_path / "items.csv", tmp_path / "interactions.csv", tmp_path / "out", longer)
    model, popularity, _ = read_bundle(tmp_path / "out").metrics["test"]
    assert model["metrics"]["masked"]["ndcg@10"]["low"] > 1.5 * popularity["metrics"]["masked"]["ndcg@10"]["high"]


def test_the_same_tables_and_seed_give_the_same_bundle_in_memory_or_on_disk(
    bundle: Path, shop: Shop, quick: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "STRETCH", 100)  # longer arrays are on disk, of which no more are worked on at once
    (tmp_path / "events").mkdir()
    events = shop[1].table
    for number, start in enumerate(range(0, len(events), 700)):
        pq.write_table(events.slice(start, 700), tmp_path / "events" / f"{number}.parquet")
    again = fit(shop[0].table, tmp_path / "events", tmp_path / "again", quick)
    assert weights_hash(again) == weights_hash(bundle)
    assert read_bundle(again).codes.hash == read_bundle(bundle).codes.hash


def test_another_seed_gives_another_model_and_the_difference_of_codes_can_be_counted(
    bundle: Path, shop: Shop, tmp_path: Path
) -> None:
    other = fit(shop[0].table, shop[1].table, tmp_path / "other", load_recipe(overrides=QUICK | {"seed": 5}))
    changes = diff(read_bundle(bundle).codes, read_bundle(other).codes)
    assert changes.changed > 0
    assert changes.changed + changes.unchanged == 80


def test_a_killed_fit_goes_on_and_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="genrec")
    tables, recipe = tmp_path / "tables", tmp_path / "recipe.yaml"
    write_shop(tables, users=400, items=80, seed=1)
    settings = load_recipe(overrides=QUICK | {"training.epochs": 8, "training.patience": 8}).to_dict()
    recipe.write_text(yaml.safe_dump(settings))
    fit(tables / "items.csv", tables / "interactions.csv", tmp_path / "whole", load_recipe(recipe))
    command = [
        sys.executable, "-m", "genrec.cli", "fit", "--items", str(tables / "items.csv"),
        "--interactions", str(tables / "interactions.csv"), "--out", str(tmp_path / "killed"), "--recipe", str(recipe),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoints = tmp_path / "killed" / "work" / "training"
    while not list(checkpoints.glob("checkpoint-*/trainer_state.json")):
        assert process.poll() is None, "the fit ended before it could be killed"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "manifest.json").exists()
    with pytest.raises(BundleError, match="A run was stopped there: run the same `genrec fit` again"):
        Recommender.load(tmp_path / "killed")
    with pytest.raises(BundleError, match="unfinished fit with another recipe"):
        fit(tables / "items.csv", tables / "interactions.csv", tmp_path / "killed", load_recipe(overrides=QUICK))
    (tmp_path / "killed").rename(tmp_path / "moved")
    made = (tmp_path / "moved" / "work" / "codes" / "codes.parquet").read_bytes()
    monkeypatch.setattr(fit_module, "make_codes", None)  # another machine might make others: they are made once
    fit(tables / "items.csv", tables / "interactions.csv", tmp_path / "moved", load_recipe(recipe))
    assert "Going on with the unfinished fit" in caplog.text
    assert weights_hash(tmp_path / "moved") == weights_hash(tmp_path / "whole")
    assert (tmp_path / "moved" / "codes.parquet").read_bytes() == made
    seconds = [read_bundle(tmp_path / name).metrics["training_seconds"] for name in ("whole", "moved")]
    assert seconds[0] > 0
    assert seconds[1] is None, "those of the killed run are not known"


def test_tasks_without_data_are_refused_before_items_are_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shop: Shop
) -> None:
    llm = write_llm(tmp_path / "llm", shop[0].table.column("title").to_pylist())
    recipe = load_recipe(overrides=QUICK | {"model.pretrained": str(llm), "tasks.search": 1})
    monkeypatch.setattr(fit_module, "make_vectors", None)
    with pytest.raises(SettingError, match="tasks.search has no example in these tables"):
        fit(shop[0].table.select(["item_id", "title"]), shop[1].table, tmp_path / "out", recipe)
    assert not (tmp_path / "out").exists()


def test_a_finished_bundle_or_a_folder_of_something_else_is_not_overwritten(
    bundle: Path, shop: Shop, quick: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match="holds a finished bundle already"):
        fit(shop[0].table, shop[1].table, bundle, quick)
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(BundleError, match="is not empty and not a fit"):
        fit(shop[0].table, shop[1].table, tmp_path, quick)
    assert (tmp_path / "letter.txt").read_text() == "dear"


def test_overwrite_starts_anew(shop: Shop, quick: Recipe, tmp_path: Path) -> None:
    first = fit(shop[0].table, shop[1].table, tmp_path / "out", quick)
    before = weights_hash(first)
    fit(shop[0].table, shop[1].table, tmp_path / "out", load_recipe(overrides=QUICK | {"seed": 9}), overwrite=True)
    assert weights_hash(first) != before


def test_a_pretrained_model_takes_the_same_road_with_lora(shop: Shop, tmp_path: Path) -> None:
    base = tmp_path / "base"
    Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=40, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, head_dim=16, max_position_embeddings=256, tie_word_embeddings=True,
        )
    ).save_pretrained(base)  # fmt: skip
    words = {f"w{i}": i for i in range(39)} | {"<eos>": 39}
    spelling = Tokenizer(models.WordLevel(words, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=spelling, eos_token="<eos>").save_pretrained(base)
    recipe = load_recipe(overrides=QUICK | {"model.pretrained": str(base), "model.lora_rank": 4})
    out = fit(shop[0].table, shop[1].table, tmp_path / "out", recipe)
    model = AutoModelForCausalLM.from_pretrained(out)
    settings = read_bundle(out).settings
    assert type(model) is Qwen3ForCausalLM, "merged: a plain model that needs no peft to load"
    assert model.get_input_embeddings().weight.shape[0] == settings.layout.vocabulary_size == 40 + sum(settings.sizes)
    [items] = Recommender.load(out).recommend([shop[0].item_ids[:3].tolist()], k=5)
    assert len(items) == 5


def test_lora_without_peft_stops_before_any_work(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingDependencyError, match="LoRA needs the package peft"):
        fit(shop[0].table, shop[1].table, tmp_path / "out", load_recipe(overrides=QUICK | {"model.pretrained": "any"}))
    assert not (tmp_path / "out").exists()


def test_shared_codes_and_a_global_time_split_work_too(shop: Shop, tmp_path: Path) -> None:
    changes = {
        "tokenizer.collision_policy": "shared",
        "data.split": "global-time",
        "tokenizer.rq_kmeans.levels": 2,
        "tokenizer.rq_kmeans.codebook_size": 4,
    }
    out = fit(shop[0].table, shop[1].table, tmp_path / "out", load_recipe(overrides=QUICK | changes))
    opened = read_bundle(out)
    assert len(np.unique(opened.codes.codes, axis=0)) < len(opened.codes), "some items share codes"
    [items] = Recommender.load(out).recommend([[]], k=20, exclude_seen=False)
    assert len({i.item_id for i in items}) == 20


def test_evaluating_a_bundle_again_gives_the_numbers_of_its_fit(
    bundle: Path, shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    results = evaluate_bundle(bundle, shop[1].table, max_questions=60).evaluation.results
    recorded = read_bundle(bundle).metrics["test"]
    assert [r.to_dict()["metrics"] for r in results] == [r["metrics"] for r in recorded]
    assert "not the ones of the fit" not in caplog.text
    evaluate_bundle(bundle, shop[1].table.slice(0, 900), max_questions=20, baselines=False, part="validation")
    assert "not the ones of the fit" in caplog.text


def test_trained_baselines_are_measured_by_name(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRAINED, "sasrec", lambda seed: SequenceRanker(SequenceConfig(width=8, layers=1, heads=1, epochs=1)))
    recipe = load_recipe(overrides=QUICK | {"evaluation.baselines": ["popularity", "sasrec"]})
    tables = read_tables(shop[0].table, shop[1].table, recipe)
    split = split_histories(tables.interactions.histories(tables.catalogue), recipe)
    results = evaluate_baselines(tables.catalogue, split, recipe, split.test)
    assert [result.name for result in results] == ["popularity", "sasrec"]
    assert load_recipe(overrides={"evaluation.baselines": ["bsarec"]}).evaluation.baselines == ["bsarec"]


def test_a_user_holdout_is_fitted_kept_in_the_bundle_and_evaluated_on_the_same_users(shop: Shop, tmp_path: Path) -> None:
    changes = {"data.split": "user-holdout", "data.split_seed": 4, "data.questions": "warm", "data.test_share": 0.2}
    out = fit(shop[0].table, shop[1].table, tmp_path / "out", load_recipe(overrides=QUICK | changes))
    opened = read_bundle(out)
    assert opened.settings.split == {
        "split": "user-holdout", "validation_share": 0.1, "test_share": 0.2, "split_seed": 4, "questions": "warm",
    }  # fmt: skip
    assert {leak["kind"] for leak in opened.metrics["leaks"]} <= INHERENT
    [result] = evaluate_bundle(out, shop[1].table, max_questions=60, baselines=False, strict=True).evaluation.results
    assert result.to_dict()["metrics"] == opened.metrics["test"][0]["metrics"]
    with pytest.raises(DataError, match="questions of the user-holdout split is cold: their targets all have training events"):
        evaluate_bundle(out, shop[1].table, questions_about="cold")


def test_a_strict_evaluation_on_other_events_is_an_error(bundle: Path, shop: Shop) -> None:
    with pytest.raises(DataError, match=r"other-events: .*not the ones of the fit of the model"):
        evaluate_bundle(bundle, shop[1].table.slice(0, 900), baselines=False, strict=True)


def events(rows: list[tuple]) -> pa.Table:
    return pa.table({"user_id": [r[0] for r in rows], "item_id": [r[1] for r in rows]})


FIVE = pa.table({"item_id": list("abcde"), "title": ["one", "two", "three", "four", "five"]})
WALKS = events([(f"u{u}", "abcde"[(u + step) % 5]) for u in range(20) for step in range(4)])


@pytest.mark.parametrize(
    ("items", "interactions", "message"),
    [
        (FIVE.slice(0, 0), WALKS, "items table must have at least one row, got 0"),
        (FIVE, WALKS.slice(0, 0), "interactions table must have at least one row, got 0"),
        (FIVE.drop_columns(["item_id"]), WALKS, "must have a column 'item_id'"),
        (FIVE, WALKS.rename_columns(["user", "item_id"]), "must have a column 'user_id'.*Did you mean 'user'"),
        (pa.concat_tables([FIVE, FIVE.slice(0, 1)]), WALKS, "must be unique in the items table.*'a', 2 times"),
        (pa.table({"item_id": [1.0, float("nan")], "title": ["a", "b"]}), WALKS, "must hold ids"),
        (pa.table({"item_id": ["a", None], "title": ["a", "b"]}), WALKS, "must have a value in every row"),
        (FIVE.slice(0, 2), WALKS, "Every interaction must name an item"),
        (FIVE.slice(0, 1), events([(f"u{u}", "a") for u in range(9) for _ in range(4)]), "at least 2 items to choose from"),
        (FIVE, events([("u", "a"), ("v", "b")]), "leaves no validation questions.*3 events or more"),
        (FIVE.drop_columns(["title"]), WALKS, "no text column"),
        (FIVE, WALKS.append_column("timestamp", [["soon"] * 80]), "Column 'timestamp' must hold numbers or ISO 8601"),
    ],
)
def test_bad_tables_get_a_clear_message_and_leave_nothing_behind(
    items: pa.Table, interactions: pa.Table, message: str, quick: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(GenrecError, match=message):
        fit(items, interactions, tmp_path / "out", quick)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_mended_table_can_be_fitted_into_the_same_folder(quick: Recipe, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        fit(FIVE.slice(0, 1), WALKS, tmp_path / "out", quick)
    fit(FIVE, WALKS, tmp_path / "out", quick)
    Recommender.load(tmp_path / "out")


def test_tiny_and_strange_tables_work(quick: Recipe, tmp_path: Path) -> None:
    strange = pa.table({
        "item_id": ["a", "b", "ç", "🙂", "e e"],
        "title": ["Crème brûlée 🙂", "", "x" * 1_000_000, "日本語のタイトル", None],
        "price": [1.5, None, 3.0, float("nan"), 0.0],
    })  # fmt: skip
    ids = strange.column("item_id").to_pylist()
    rows = [(f"ü{u}", ids[(u + step) % 5]) for u in range(20) for step in range(4)]
    out = fit(strange, events(rows + rows[:8]), tmp_path / "out", quick)  # with duplicate rows
    [items] = Recommender.load(out).recommend([["ç", "🙂"]], k=5, exclude_seen=False)
    assert {i.item_id for i in items} == set(ids)
