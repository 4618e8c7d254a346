"""The tasks of a recipe on two tables: what `genrec fit` learns from, and what `genrec preview` shows of it.

In: the tables, their split, codes, and a pretrained model's layout and text tokenizer. Out: a `Mix`; or text for people.

    from genrec.tasks import preview_tasks
    print(preview_tasks("items.csv", "events.csv", load_recipe(Path("training/recipes/lc_rec.yaml"))))
"""

from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from genrec.columns import ITEM_ID
from genrec.data.catalogue import Catalogue
from genrec.data.interactions import Histories
from genrec.embedding.text import CATEGORIES, PROVIDERS, labels, render, title_column
from genrec.errors import SettingError, check_integer
from genrec.models.pretrained import layout_alone
from genrec.models.tokens import TokenLayout
from genrec.models.words import Words
from genrec.published import read_codes
from genrec.recipe import Recipe
from genrec.tables import Tables, read_tables, split_histories, training_texts
from genrec.tokenize import in_order_of, make_codes, make_vectors, with_recipe_of
from genrec.training.examples import HistoryWindows
from genrec.training.tasks.dialogue import DIALOGUE_TASKS, dialogue_places
from genrec.training.tasks.families import Given
from genrec.training.tasks.mix import Mix, make_mix
from genrec.training.tasks.places import make_places
from genrec.training.tasks.preview import preview

DESCRIPTIONS = ("description", "features")


def mix_of(
    recipe: Recipe,
    tables: Tables,
    train: Histories,
    codes: np.ndarray,
    layout: TokenLayout,
    text_tokenizer: PreTrainedTokenizerBase,
) -> tuple[Mix, Words]:
    """The recipe's mix, and the words it is written in. train: the training part. codes: [N, L]. Raises as `make_mix`."""
    training, tasks = recipe.training, recipe.tasks
    words = Words(text_tokenizer, layout.base, tasks.text_tokens)
    texts = item_texts(tables.catalogue)
    places = make_places(train, codes, layout, words, texts, training_texts(tables, recipe))
    if any(tasks.aligned.get(task.name) for task in DIALOGUE_TASKS):
        places |= dialogue_places(train, codes, layout, words, texts, tables.catalogue.table, tables.dialogues)
    windows = HistoryWindows(train, training.max_history, training.windows_per_user)
    given = Given(train, len(tables.catalogue), training.max_history, recipe.seed, tables.dialogues)
    return make_mix(tasks.aligned, windows, given, codes, layout, words, places), words


def check_tasks(recipe: Recipe, tables: Tables, train: Histories) -> None:
    """Raise what making the recipe's mix would raise, before there are codes: `SettingError` for a task that the tables have
    nothing for, or for a model without words."""
    if recipe.tasks.aligned:
        layout, text_tokenizer = layout_alone(recipe.model, (1,))
        mix_of(recipe, tables, train, np.zeros((len(tables.catalogue), 1), np.int64), layout, text_tokenizer)


def item_texts(catalogue: Catalogue) -> dict[str, list[str]]:
    """What prompts may say of items: N texts under "title", "description", "category" and "brand", as far as there are columns
    of them; "" where an item has none."""
    title = title_column(catalogue.table.schema)
    description = next((name for name in DESCRIPTIONS if name in catalogue.field_names and name != title), None)
    texts = {name: render(catalogue, f"{{{column}}}") for name, column in (("title", title), ("description", description))
             if column is not None and column != ITEM_ID}  # fmt: skip
    for name, columns in (("category", CATEGORIES), ("brand", PROVIDERS)):
        found = labels(catalogue.table, columns)
        if found is not None:
            texts[name] = found.tolist()
    return texts


def preview_tasks(items: Any, interactions: Any, recipe: Recipe, codes: str | Path | None = None, samples: int = 2) -> str:
    """A few samples of each task of the recipe, with what counts in the loss marked. codes: a folder of published codes;
    without it they are made, as `genrec fit` would make them.

    The model's weights are not read. Raises `SettingError` for a recipe without a pretrained decoder, `DataError`.
    """
    check_integer("samples", samples, 1)
    if recipe.model.pretrained is None or not recipe.tasks.aligned:
        raise SettingError(
            "The recipe has no task beside next_item, so there is nothing to preview. Give tasks weights in its section tasks, "
            "and name a causal language model in model.pretrained."
        )
    tables = read_tables(items, interactions, recipe)
    published = None if codes is None else read_codes(codes)
    if published:
        recipe, tables = with_recipe_of(recipe, published), in_order_of(tables, published)
    train = split_histories(tables.interactions.histories(tables.catalogue, recipe.data.unknown_items), recipe).train
    if published:
        table = published.table
    else:
        _, vectors = make_vectors(tables.catalogue, train, recipe)
        _, table = make_codes(tables.catalogue, vectors, train, recipe)
    layout, text_tokenizer = layout_alone(recipe.model, table.sizes)
    mix, words = mix_of(recipe, tables, train, table.codes, layout, text_tokenizer)
    return preview(mix, words, samples, recipe.seed)
