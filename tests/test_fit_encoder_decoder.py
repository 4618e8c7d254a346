"""The main job with an encoder-decoder (T5): fitted, saved, asked, measured again; what does not go together is refused."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from quick import QUICK
from transformers import AutoModelForSeq2SeqLM, T5ForConditionalGeneration
from worlds import assert_same_ranking, brute_force, write_t5

from genrec.bundle import read_bundle
from genrec.cli import main
from genrec.data.catalogue import Catalogue
from genrec.data.interactions import Histories, Interactions
from genrec.data.synthetic import write_shop
from genrec.errors import SettingError
from genrec.evaluate_bundle import evaluate_bundle
from genrec.fit import fit
from genrec.recipe import load_recipe
from genrec.recommender import Recommender

Shop = tuple[Catalogue, Interactions]
T5 = QUICK | {"model.architecture": "encoder-decoder"}
TIGER = Path(__file__).parents[1] / "training" / "recipes" / "tiger.yaml"


def weights_hash(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_it_beats_popularity_on_the_shop(tmp_path: Path) -> None:
    write_shop(tmp_path, users=800, items=100, seed=3)
    longer = {"training.epochs": 10, "training.batch_tokens": 1024, "evaluation.max_questions": 0, "model.dropout": 0.0}
    fit(tmp_path / "items.csv", tmp_path / "interactions.csv", tmp_path / "out", load_recipe(overrides=T5 | longer))
    model, popularity, _ = read_bundle(tmp_path / "out").metrics["test"]
    assert model["metrics"]["masked"]["ndcg@10"]["low"] > 1.5 * popularity["metrics"]["masked"]["ndcg@10"]["high"]


def test_the_bundle_is_a_plain_t5_and_the_same_again_from_the_same_tables_and_seed(
    encoder_decoder_bundle: Path, shop: Shop, tmp_path: Path
) -> None:
    model = AutoModelForSeq2SeqLM.from_pretrained(encoder_decoder_bundle)
    opened = read_bundle(encoder_decoder_bundle)
    assert type(model) is T5ForConditionalGeneration
    assert model.get_input_embeddings().weight.shape[0] == opened.settings.layout.vocabulary_size
    assert opened.architecture == "T5ForConditionalGeneration"
    assert "a T5 encoder-decoder trained from scratch" in (encoder_decoder_bundle / "README.md").read_text()
    again = fit(shop[0].table, shop[1].table, tmp_path / "again", load_recipe(overrides=T5))
    assert weights_hash(again) == weights_hash(encoder_decoder_bundle)


def test_a_wide_beam_of_the_loaded_bundle_equals_scoring_every_item(encoder_decoder_bundle: Path) -> None:
    ranker = Recommender.load(encoder_decoder_bundle, "cpu").ranker
    histories = [np.array([3, 70, 12, 5]), np.array([9]), np.zeros(0, np.int64), np.arange(40)]
    rows, scores = ranker.rank(Histories.from_lists(histories), 80, exclude_seen=False, beam_width=80)
    for history, found, found_scores in zip(histories, rows, scores, strict=True):
        assert_same_ranking(found, found_scores, brute_force(ranker, history), set(range(80)))


def test_the_order_of_users_and_who_else_is_asked_about_change_no_answer(encoder_decoder_bundle: Path, shop: Shop) -> None:
    recommender = Recommender.load(encoder_decoder_bundle, "cpu")
    ids = shop[0].item_ids.tolist()
    histories = [ids[:3], [], ids[10:35], [ids[7]]]
    together = recommender.recommend(histories, k=10)
    for order in ([3, 0, 2, 1], [1]):
        for place, items in zip(order, recommender.recommend([histories[n] for n in order], k=10), strict=True):
            assert [item.score for item in items] == pytest.approx([item.score for item in together[place]], abs=1e-4)


def test_rules_reasons_and_new_items_work_as_with_a_decoder(encoder_decoder_bundle: Path, shop: Shop) -> None:
    recommender = Recommender.load(encoder_decoder_bundle, "cpu")
    ids = shop[0].item_ids.tolist()
    [items] = recommender.recommend([ids[:3]], k=5, where="price < 30", max_per={"brand": 2}, explain=True)
    assert all(item.fields["price"] < 30 for item in items)
    for item in items:
        assert item.explanation is not None
        assert item.explanation.score == pytest.approx(item.score, abs=1e-4)
        assert len(item.explanation.history) == 3
    twin = shop[0].table.slice(4, 1)
    twin = twin.set_column(twin.column_names.index("item_id"), "item_id", [["new"]])
    recommender.catalogue.add(twin)
    [[new]] = recommender.recommend([ids[:3]], k=1, only_item_ids=["new"])
    assert new.item_id == "new"


def test_evaluating_the_bundle_again_gives_the_numbers_of_its_fit(encoder_decoder_bundle: Path, shop: Shop) -> None:
    [result] = evaluate_bundle(
        encoder_decoder_bundle, shop[1].table, max_questions=60, baselines=False, unconstrained=True
    ).evaluation.results
    assert result.to_dict()["metrics"] == read_bundle(encoder_decoder_bundle).metrics["test"][0]["metrics"]
    assert result.illegal_rate is not None


def test_a_model_with_user_tokens_answers_each_user_and_who_says_no_name(shop: Shop, tmp_path: Path) -> None:
    out = fit(shop[0].table, shop[1].table, tmp_path / "out", load_recipe(overrides=T5 | {"model.user_tokens": 50}))
    recommender = Recommender.load(out, "cpu")
    ranker, ids = recommender.ranker, shop[0].item_ids.tolist()
    history, options = recommender.catalogue.current.rows(ids[:3]), {"k": 77, "beam_width": 80, "explain": True}
    named, other, nameless = (
        recommender.recommend([ids[:3]], user_ids=users, **options)[0] for users in (["U00001"], ["U00002"], None)
    )
    for items, user in ((named, "U00001"), (other, "U00002"), (nameless, None)):
        exact = brute_force(ranker, history, first=ranker.layout.first_token(user))
        rows = recommender.catalogue.current.rows([item.item_id for item in items])
        np.testing.assert_allclose([item.score for item in items], exact[rows], atol=2e-4)
        np.testing.assert_allclose([item.explanation.score for item in items], exact[rows], atol=2e-4)  # type: ignore[union-attr]
    assert len({items[0].score for items in (named, other, nameless)}) == 3
    why = recommender.explain(ids[:3], named[0].item_id, user_id="U00001")
    assert why.score == pytest.approx(named[0].score, abs=1e-4)
    events = pa.table({"user_id": ["U00001"] * 3, "item_id": ids[:3]})
    table = recommender.recommend_df(events, k=77, beam_width=80)
    np.testing.assert_allclose(table.column("score").to_numpy(), [item.score for item in named], atol=1e-4)
    [result] = evaluate_bundle(out, shop[1].table, max_questions=60, baselines=False).evaluation.results
    assert result.to_dict()["metrics"] == read_bundle(out).metrics["test"][0]["metrics"], "the same users, the same tokens"
    with pytest.raises(SettingError, match="one user per history, got 2 for 1 histories"):
        recommender.recommend([ids[:3]], user_ids=["a", "b"])


@pytest.mark.parametrize(("rank", "own_output"), [(4, False), (0, True)])
def test_a_pretrained_t5_takes_the_same_road(shop: Shop, tmp_path: Path, rank: int, own_output: bool) -> None:
    base = write_t5(tmp_path / "base", own_output)
    recipe = load_recipe(overrides=T5 | {"model.pretrained": str(base), "model.lora_rank": rank})
    out = fit(shop[0].table, shop[1].table, tmp_path / "out", recipe)
    ranker = Recommender.load(out, "cpu").ranker
    assert ranker.layout.base == 50
    assert (ranker.model.get_output_embeddings().weight is ranker.model.get_input_embeddings().weight) != own_output
    [rows], [scores] = ranker.rank(Histories.from_lists([[5, 6]]), 80, exclude_seen=False, beam_width=80)
    assert_same_ranking(rows, scores, brute_force(ranker, np.array([5, 6])), set(range(80)))
    [result] = evaluate_bundle(out, shop[1].table, max_questions=60, baselines=False).evaluation.results
    assert result.to_dict()["metrics"] == read_bundle(out).metrics["test"][0]["metrics"], "the saved model is the measured one"


def test_the_tiger_recipe_runs_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All of it but its size: a small shop, one epoch, few steps of the item tokenizer, TF-IDF for the sentence encoder."""
    write_shop(tmp_path, users=60, items=40, seed=1)
    tables = ["--interactions", str(tmp_path / "interactions.csv")]
    smaller = ["--text.encoder", "tfidf-svd", "--tokenizer.rq-vae.codebook-size", "8", "--tokenizer.rq-vae.steps", "20",
               "--training.epochs", "1", "--training.validation-users", "20"]  # fmt: skip
    out = str(tmp_path / "out")
    assert main(["fit", "--items", str(tmp_path / "items.csv"), *tables, "--out", out, "--recipe", str(TIGER), *smaller]) == 0
    model = read_bundle(out).load_model("cpu")
    assert (model.config.num_heads, model.config.d_kv, model.config.num_decoder_layers) == (6, 64, 4)
    assert main(["evaluate", out, *tables, "--max-questions", "20", "--no-baselines"]) == 0
    assert "ndcg@10" in capsys.readouterr().out
    item = read_bundle(out).catalogue.item_ids[0]
    assert main(["recommend", out, "--history", item, "-k", "3", "--explain"]) == 0
    assert "p = " in capsys.readouterr().out


def test_a_pretrained_model_of_another_kind_stops_before_any_work(shop: Shop, tmp_path: Path) -> None:
    base = write_t5(tmp_path / "base")
    recipe = load_recipe(overrides=QUICK | {"model.pretrained": str(base)})
    with pytest.raises(SettingError, match=r"of type 't5'. Set model.architecture to 'encoder-decoder'"):
        fit(shop[0].table, shop[1].table, tmp_path / "out", recipe)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"training.targets_per_user": 2}, "training.targets_per_user is for an encoder-decoder: a decoder learns every item"),
        ({"training.targets_per_user": -1}, "training.targets_per_user must be an integer of at least 0"),
        ({"model.architecture": "encoder-decoder", "training.windows_per_user": 1}, "Set training.targets_per_user instead"),
        ({"model.architecture": "encoder-decoder", "training.distillation": 0.5}, "which an encoder-decoder never has"),
        ({"model.architecture": "seq2seq"}, "'encoder-decoder' or 'one-pass', got 'seq2seq'"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_with_the_reason(settings: dict, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        load_recipe(overrides=settings)
