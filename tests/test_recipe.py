"""Recipes: YAML and flags, checked; a wrong key names the nearest right one."""

from pathlib import Path

import pytest

from genrec.errors import SettingError
from genrec.recipe import Recipe, from_text, load_recipe, settings

RECIPES = sorted((Path(__file__).parents[1] / "training" / "recipes").glob("*.yaml"))


def recipe_file(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.name)
def test_every_shipped_recipe_is_valid_and_says_how_to_run_it(path: Path) -> None:
    load_recipe(path)
    assert "genrec fit" in path.read_text(encoding="utf-8").split("seed:")[0]


def test_there_are_shipped_recipes() -> None:
    assert RECIPES


def test_flags_override_the_file_and_the_file_overrides_the_defaults(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, "seed: 7\ntraining:\n  epochs: 3\n  learning_rate: 1e-3\n")
    recipe = load_recipe(path, {"training.epochs": 5})
    assert (recipe.seed, recipe.training.epochs, recipe.training.learning_rate) == (7, 5, 0.001)
    assert recipe.training.batch_tokens == Recipe().training.batch_tokens


def test_a_recipe_survives_being_written_and_read(tmp_path: Path) -> None:
    import yaml

    recipe = load_recipe(
        overrides={"training.epochs": 5, "text.template": "{title}", "data.items_columns": {"item_id": "asin"}}
    )
    assert load_recipe(recipe_file(tmp_path, yaml.safe_dump(recipe.to_dict()))) == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training:\n  epoch: 3", "no setting training.epoch. Did you mean 'training.epochs'"),
        ("epochs: 3", "no setting epochs. Did you mean 'training.epochs'"),
        ("trainning: {}", "no setting trainning. Did you mean 'training'"),
        ("training:\n  epochs: many", "training.epochs must be a whole number, got 'many'"),
        ("training:\n  epochs: true", "training.epochs must be a whole number, got True"),
        ("training: 3", "training must be a mapping of settings, got 3"),
        ("text:\n  encoder: 5", "text.encoder must be text, got 5"),
        ("decoding:\n  exclude_seen: sometimes", "decoding.exclude_seen must be true or false or 'auto', got 'sometimes'"),
        ("tokenizer:\n  collision_policy: suffx", "collision_policy must be"),
        ("tokenizer:\n  rq_kmeans:\n    levels: 99", "levels must be an integer from 1 to 8, got 99"),
        ("decoding:\n  k: 80", "decoding.k must be an integer from 1 to 50, got 80"),
        ("evaluation:\n  baselines: [popular]", "Did you mean 'popularity'"),
        ("data:\n  split: holdout", "data.split must be 'leave-one-out' or 'global-time' or 'user-holdout', got 'holdout'"),
        ("data:\n  questions: new", "data.questions must be 'all' or 'warm' or 'cold', got 'new'"),
        ("data:\n  split_seed: 3", "split_seed chooses the users of the split 'user-holdout'; the split is 'leave-one-out'"),
        ("data:\n  split: user-holdout\n  split_seed: -1", "data.split_seed must be an integer from 0"),
        ("seed: -1", "seed must be an integer from 0"),
        ("- a\n- b", "must be a mapping of sections, got list"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_mistakes_are_named_with_what_is_allowed(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingError) as error:
        load_recipe(recipe_file(tmp_path, text))
    assert message in str(error.value)


def test_a_recipe_that_is_not_there_is_an_error() -> None:
    with pytest.raises(SettingError, match="There is no recipe nowhere.yaml"):
        load_recipe(Path("nowhere.yaml"))


def test_an_empty_recipe_is_the_defaults(tmp_path: Path) -> None:
    assert load_recipe(recipe_file(tmp_path, "")) == Recipe()


def test_every_setting_has_a_help_text() -> None:
    missing = [name for name, _, _, text in settings() if not text]
    assert not missing


def test_flag_texts_become_values() -> None:
    kinds = {name: kind for name, kind, *_ in settings()}
    assert from_text(kinds["training.epochs"], "5") == 5
    assert from_text(kinds["decoding.exclude_seen"], "false") is False
    assert from_text(kinds["decoding.exclude_seen"], "auto") == "auto"
    assert from_text(kinds["text.template"], "{title}: {brand}") == "{title}: {brand}"
    assert from_text(kinds["model.pretrained"], "null") is None
    assert from_text(kinds["model.pretrained"], "123") == "123"
    assert from_text(kinds["data.items_columns"], "{item_id: asin}") == {"item_id": "asin"}
