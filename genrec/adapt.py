"""Another catalogue for a model that knows items by their texts alone: `genrec adapt`.

    from genrec.adapt import adapt
    adapt("runs/shops", "new_items.csv", "runs/new")      # the weights of runs/shops recommend the items of new_items.csv

In: a bundle and the items table of a shop that its model never saw. Out: a bundle with the same weights, text encoder and item
tokenizer, whose items have the codes and vectors that their texts give. Nothing is learned (zero-shot, as in RecGPT, arXiv
2506.06270); text vectors are centred on the mean of their own shop, as in a fit, so that what all its items share says nothing.
Votes of texts that the fit added to the scores (`fusion.votes: [texts]`) are those of the new items, as heavy as in the fit.
No item has training events, so items with the same codes go by id.

Legend: `N` items of the new catalogue, `D` vector width.
"""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from genrec.bundle import FUSION, INDEX, ITEM_ENCODER, USER_ADAPTER, USER_INDEX, Bundle, read_bundle, tie_rank, write_bundle
from genrec.card import model_card
from genrec.codes import CodeTable
from genrec.columns import ITEM_ID
from genrec.data.catalogue import Catalogue
from genrec.data.hashing import table_hash
from genrec.data.readers import load_catalogue
from genrec.decoding.fusion import Fusion
from genrec.decoding.index import CatalogueIndex
from genrec.embedding.fused import ItemEmbedder
from genrec.embedding.text import narrowed, render
from genrec.errors import BundleError, DataError, SettingError
from genrec.evaluation.baselines.floor import FloorConfig
from genrec.evaluation.baselines.neighbours import text_neighbours
from genrec.recipe import DataConfig, Recipe, build
from genrec.tokenizers.base import ItemTokenizer
from genrec.tokenizers.collisions import Published, check_policy, resolve

log = logging.getLogger(__name__)

NAMING = ("id", "hash")  # collision policies whose last code says which item it is


def adapt(
    folder: str | Path, items: Any, out: str | Path, columns: Mapping[str, str] | None = None, template: str | None = None
) -> Path:
    """Write a bundle to the new folder `out`, which is returned: the model of the bundle `folder`, the catalogue `items`.

    columns: genrec's name -> this shop's, for its items table and, kept for `genrec evaluate`, its interactions. template: how
    an item of this shop is written (default: as in the bundle, without columns that this shop does not have).

    Raises `SettingError` for a model that needs more of an item than its text, `DataError` for a table that cannot be used or
    has too many items with the same codes, `BundleError` for a folder that is none, or is not empty.
    """
    before, out = read_bundle(folder), Path(out)
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise BundleError(f"{out} is a file, or not empty. Choose a new folder: a bundle goes there, and the old one stays.")
    recipe: Recipe = build(Recipe, before.manifest["recipe"], "")
    embedder, tokenizer = before.load_encoders()
    check_text_alone(before, recipe, embedder)
    recipe = replace(recipe, data=_data(recipe.data, columns or {}))
    catalogue = load_catalogue(items, recipe.data.items_columns)
    if len(catalogue) < 2:
        raise DataError("A recommender needs at least 2 items to choose from, got a catalogue of 1.")
    known_texts = _set_template(embedder, template, before.catalogue, catalogue)
    recipe = replace(recipe, text=replace(recipe.text, template=embedder.template))  # baselines read the same texts
    vectors = embedder.move_to(catalogue)
    table = _codes(before, tokenizer, catalogue, vectors)
    counts = np.zeros(len(catalogue), np.int64)

    out.mkdir(parents=True, exist_ok=True)
    for name in before.model_files:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(before.folder / name, out / name)
    if before.one_pass:
        before.load_one_pass("cpu").for_catalogue(len(catalogue)).save(out)
    (out / INDEX).parent.mkdir(exist_ok=True)
    if before.fused:  # the weight of the fit, between the texts of this shop
        alike = text_neighbours(render(catalogue, embedder.template), FloorConfig().neighbours)
        replace(Fusion.load(before.folder / FUSION), matrices={"texts": alike}).save(out / FUSION)
    if before.settings.index:  # tastes are read from texts, here as there
        shutil.copyfile(before.folder / USER_INDEX, out / USER_INDEX)
    for name, read in ((USER_ADAPTER, before.settings.soft), (ITEM_ENCODER, before.settings.queries)):
        if read:
            shutil.copyfile(before.folder / name, out / name)
    ties = tie_rank(before.settings.tie_rule, table.item_ids, counts)
    CatalogueIndex.build(table.codes, table.sizes, ties).save(out / INDEX, table.hash)
    hashes = {"items": table_hash(catalogue.table), "interactions": None}
    earlier = before.manifest.get("adapted_from", {})
    write_bundle(
        out,
        settings=before.settings,
        serving=before.serving,
        catalogue=catalogue,
        codes=table,
        train_counts=counts,
        tokenizer=tokenizer,
        embedder=embedder,
        metrics={"weights": before.metrics["weights"], "test": []},
        about={
            "data": hashes, "seed": recipe.seed, "recipe": recipe.to_dict(), "codes_learned_from": None,
            "adapted_from": {
                "bundle": before.hash, "fitted_on": earlier.get("fitted_on", before.manifest["data"]),
                "known_texts": known_texts,
            },
        },
        card=model_card(out.name, recipe, [], hashes, table, before.settings.layout),
        vectors=None if before.vectors is None else vectors,
    )  # fmt: skip
    log.info("Bundle written to %s: %d items, %d of them with a text that the fit knew", out, len(catalogue), known_texts)
    return out


def check_text_alone(bundle: Bundle, recipe: Recipe, embedder: ItemEmbedder) -> None:
    """Raise `SettingError` unless the text of an item is all that the bundle's model and codes need of it."""
    zero_shot = "training/recipes/zero_shot.yaml does."
    if embedder.collaborative_width:
        raise SettingError(
            f"The item vectors of {bundle.folder} say what people take together, which nobody knows of a new shop. Fit with "
            f"text.collaborative_width 0, as {zero_shot}"
        )
    if embedder.config.item_vectors:
        raise SettingError(
            f"The items of {bundle.folder} have vectors of their own (text.item_vectors), which no text can replace. Fit "
            f"without them, as {zero_shot}"
        )
    if bundle.one_pass and "id" in recipe.one_pass.parts:
        raise SettingError(
            f"The model in {bundle.folder} learned a vector for each item it was fitted on, and items of a new shop have none. "
            f"Fit with the identifier 'pooled' or 'codes' and one_pass.parts without id, as {zero_shot}"
        )
    if check_policy("collision_policy", bundle.codes.policy)[0] in NAMING:
        raise SettingError(
            f"The last code of {bundle.folder} names the item (tokenizer.collision_policy {bundle.codes.policy!r}), and what "
            f"was learned of it is true of no other item. Fit with 'shared', as {zero_shot}"
        )
    if bundle.fused and recipe.fusion.votes != ("texts",):
        raise SettingError(
            f"The votes that {bundle.folder} adds to its model's scores, {list(recipe.fusion.votes)}, are of its own users. "
            "Fit with fusion.votes [texts], or without."
        )
    if bundle.settings.users:
        raise SettingError(
            f"The model in {bundle.folder} learned who its users are (model.user_tokens), and a new shop has others. Fit with "
            "model.user_tokens 0."
        )


def _data(data: DataConfig, columns: Mapping[str, str]) -> DataConfig:
    """The section with this shop's column names: a split is a rule, and holds for any shop."""
    ids = {name: yours for name, yours in columns.items() if name == ITEM_ID}
    return replace(data, items_columns=ids, interactions_columns=dict(columns))


def _set_template(embedder: ItemEmbedder, template: str | None, before: Catalogue, now: Catalogue) -> int:
    """Give the embedder the template of this shop. How many items have a text that an item of the fit has, empty ones aside:
    zero-shot is for the others."""
    chosen = narrowed(embedder.template, now.field_names) if template is None else template
    if not chosen:
        raise SettingError(
            f"The bundle writes an item as {embedder.template!r}, and the new items table has none of these columns; it has "
            f"{now.field_names}. Say how an item is written here, such as --template '{{name}}'."
        )
    texts = render(now, chosen)
    empty = sum(not text for text in texts)
    if empty:
        log.warning("%d of %d items have no text in %r: for the model they are one item.", empty, len(now), chosen)
    embedder.template, old = chosen, narrowed(chosen, before.field_names)
    seen = set(render(before, old)) - {""} if old else set()
    return sum(text in seen for text in texts)


def _codes(bundle: Bundle, tokenizer: ItemTokenizer, catalogue: Catalogue, vectors: np.ndarray) -> CodeTable:
    """Codes in the levels that the model has. A suffix level is as large as in the fit, and ordinals go by item id."""
    sizes, ids = bundle.codes.sizes, catalogue.item_ids
    nobody = Published(sizes, lambda prefix: np.zeros(sizes[-1], np.int64), 0)
    codes, _ = resolve(ids.tolist(), tokenizer.encode(vectors), tokenizer, bundle.codes.policy, vectors, nobody)
    distinct = len(np.unique(codes, axis=0))
    log.info("Codes %s: %d distinct tuples for %d items", sizes, distinct, len(catalogue))
    return CodeTable(ids, codes, sizes, bundle.codes.policy, tokenizer.fingerprint)
