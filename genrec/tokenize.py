"""Codes for a catalogue, published: `genrec tokenize`.

    from genrec.tokenize import tokenize, append_to
    tokenize("items.csv", "events.csv", "runs/codes")              # fit, and a report of how good the codes are
    append_to("runs/codes", "new_items.csv", "runs/codes-2")       # new items; no code that exists moves

Stages: read -> split -> item vectors -> item tokenizer -> codes -> quality report. `genrec fit` uses the same ones. Only
training interactions are seen; hit rates of the report are measured on validation questions.
"""

import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from genrec.codes import CodeTable
from genrec.data.catalogue import Catalogue, conform
from genrec.data.hashing import table_hash
from genrec.data.interactions import Histories
from genrec.data.readers import load_catalogue
from genrec.data.splits import Split
from genrec.embedding.fused import ItemEmbedder
from genrec.embedding.text import CATEGORIES, labels, title_column
from genrec.errors import BundleError, DataError, SettingError
from genrec.manifest import read_manifest, write_json
from genrec.published import CODES, PublishedCodes, read_codes
from genrec.recipe import DataConfig, Recipe, build
from genrec.tables import Tables, hash_of_vectors, read_tables, split_histories
from genrec.tokenizers.base import ItemTokenizer
from genrec.tokenizers.collisions import append, assign
from genrec.tokenizers.meaning import meanings
from genrec.tokenizers.page import html
from genrec.tokenizers.report import Quality, comparison, measure

log = logging.getLogger(__name__)

# What a folder of codes is made of, its manifest aside.
OWN = {
    "codes.parquet",
    "catalogue.parquet",
    "vectors.safetensors",
    "item_tokenizer",
    "embedder",
    "quality.json",
    "quality.html",
}


def tokenize(
    items: Any,
    interactions: Any,
    out: str | Path,
    recipe: Recipe | None = None,
    overwrite: bool = False,
    once: Callable[[Callable[[], np.ndarray]], np.ndarray] | None = None,
) -> Path:
    """Give every item of a catalogue its codes and write them to the folder `out`, with a report (`quality.html`,
    `quality.json`).

    interactions: None where there are none yet; then text.collaborative_width must be 0, and behaviour is not measured. once:
    see `make_vectors`; for several codes of one catalogue.
    Raises `DataError`, `SettingError`, `BundleError`, `MissingDependencyError`.
    """
    recipe, out, started = recipe or Recipe(), Path(out), time.perf_counter()
    _check_folder(out, overwrite)
    catalogue, split, hashes = _read(items, interactions, recipe)
    check_needs(recipe, split is not None)
    embedder, vectors = make_vectors(catalogue, split.train if split else None, recipe, once)
    tokenizer, table = make_codes(catalogue, vectors, split.train if split else None, recipe)
    made = PublishedCodes(table, catalogue, vectors, tokenizer, embedder, {})
    _publish(made, out, split, {"data": hashes, "recipe": recipe.to_dict(), "seconds": time.perf_counter() - started})
    log.info("Codes written to %s; the report is %s", out, out / "quality.html")
    return out


def append_to(
    folder: str | Path,
    items: Any,
    out: str | Path,
    overwrite: bool = False,
    item_vectors: str | Path | None = None,
) -> Path:
    """The next generation of published codes: those in `folder` and codes for the items of the table `items` that it lacks.
    item_vectors: a Parquet file with vectors of the new items, where the codes were made with such.

    No code that exists moves. Items that have codes already are left as they are. Raises `DataError` when there is nothing new.
    """
    before, out = read_codes(folder), Path(out)
    if out.resolve() == Path(folder).resolve():
        raise BundleError(f"{out} is the generation to append to. Choose another folder: generations stay.")
    _check_folder(out, overwrite)
    recipe = recipe_of(before)
    given = load_catalogue(items, recipe.data.items_columns)
    new = given.table.take(pa.array(np.flatnonzero(before.catalogue.rows(given.item_ids) < 0)))
    if not new.num_rows:
        raise DataError(f"All {len(given)} items have codes in {folder} already. Nothing was written.")
    added = Catalogue.from_table(conform(new, before.catalogue.table.schema))
    log.info("%d new items, %d have codes already", len(added), len(given) - len(added))
    vectors = before.embedder.encode(added, item_vectors)
    codes = before.tokenizer.encode(vectors)
    table = append(before.table, added.item_ids.tolist(), codes, before.tokenizer, vectors)
    after = PublishedCodes(
        table,
        Catalogue.from_table(pa.concat_tables([before.catalogue.table, added.table])),
        np.concatenate([before.vectors, vectors]),
        before.tokenizer,
        before.embedder,
        {},
    )
    _publish(
        after,
        out,
        None,
        {"data": before.manifest["data"] | {"items": table_hash(after.catalogue.table)}, "recipe": before.manifest["recipe"]},
    )
    log.info("Generation %d written to %s", table.generation, out)
    return out


def compare(recipes: Mapping[str, Recipe], items: Any, interactions: Any) -> tuple[str, dict[str, Quality]]:
    """One Markdown table for several recipes on one catalogue, and the numbers behind it. Texts are encoded once."""
    texts: dict[tuple[Any, ...], np.ndarray] = {}
    rows, found = [], {}
    for name, recipe in recipes.items():
        catalogue, split, hashes = _read(items, interactions, recipe)
        check_needs(recipe, split is not None)
        key = (recipe.text.encoder, recipe.text.template, recipe.seed, hashes["items"])

        def once(encode: Callable[[], np.ndarray], key: tuple[Any, ...] = key) -> np.ndarray:
            if key not in texts:
                texts[key] = encode()
            return texts[key]

        embedder, vectors = make_vectors(catalogue, split.train if split else None, recipe, once)
        started = time.perf_counter()
        tokenizer, table = make_codes(catalogue, vectors, split.train if split else None, recipe)
        seconds = time.perf_counter() - started
        found[name] = quality_of(PublishedCodes(table, catalogue, vectors, tokenizer, embedder, {}), split)
        rows.append((name, found[name], {"seconds": round(seconds, 1)}))
    return comparison(rows), found


def make_vectors(
    catalogue: Catalogue,
    train: Histories | None,
    recipe: Recipe,
    once: Callable[[Callable[[], np.ndarray]], np.ndarray] | None = None,
) -> tuple[ItemEmbedder, np.ndarray]:
    """The fitted embedder and the item vectors [N, D]. `once` may cache the slow text encoding."""
    text = recipe.text
    embedder = ItemEmbedder(replace(text, seed=recipe.seed))
    log.info("Item vectors: encoder %s, collaborative width %d", text.encoder, text.collaborative_width)
    return embedder, embedder.fit(catalogue, train, once)


def check_needs(recipe: Recipe, interactions: bool) -> None:
    """Refuse a tokenizer that needs interactions where there are none: told before the vectors are made, not after."""
    asks = {
        f"tokenizer.family {recipe.tokenizer.family!r}": recipe.tokenizer.make(recipe.seed).wants_histories,
        "tokenizer.fit_on 'training'": recipe.tokenizer.fit_on == "training",
        "tokenizer.collision_policy 'popular-suffix'": recipe.tokenizer.collision_policy == "popular-suffix",
    }
    for what, needed in asks.items():
        if needed and not interactions:
            raise SettingError(f"{what} as the recipe has it learns from histories. Give --interactions.")


def make_codes(
    catalogue: Catalogue, vectors: np.ndarray, train: Histories | None, recipe: Recipe
) -> tuple[ItemTokenizer, CodeTable]:
    """The fitted item tokenizer, and the code table under the collision policy."""
    tokenizer = recipe.tokenizer.make(recipe.seed)
    if train is not None and recipe.tokenizer.fit_on == "training":
        met, items = np.unique(train.items, return_inverse=True)
        tokenizer.fit(vectors[met], replace(train, items=items.reshape(-1)))
    else:
        tokenizer.fit(vectors, train)
    plain = tokenizer.encode(vectors)
    counts = None if train is None else np.bincount(train.items, minlength=len(catalogue))
    table = assign(catalogue.item_ids.tolist(), plain, tokenizer, recipe.tokenizer.collision_policy, vectors, counts)
    distinct = len(np.unique(plain, axis=0))
    log.info("Codes %s: %d distinct tuples for %d items before the collision policy", table.sizes, distinct, len(table))
    return tokenizer, table


def quality_of(made: PublishedCodes, split: Split | None) -> Quality:
    """All numbers of the report. Behaviour is measured where there is a split."""
    return measure(
        made.table, made.tokenizer, made.vectors, split.train if split else None, split.validation if split else None,
        labels(made.catalogue.table, CATEGORIES),
    )  # fmt: skip


def _publish(made: PublishedCodes, out: Path, split: Split | None, about: dict[str, Any]) -> None:
    """Measure, say what was found, and write the folder. Codes that lay there go only when everything else is done."""
    found, table = quality_of(made, split), made.catalogue.table
    titles = [str(title or "") for title in table.column(title_column(table.schema)).to_pylist()]
    page = html(found, made.table, meanings(made.table.codes[:, 0], titles, made.vectors), out.name)
    log.info("%s", found.summary())
    # The old manifest stays until the new one takes its place: a folder that a crash left half written is refused by its
    # hashes, and can still be replaced.
    for name in ("item_tokenizer", "embedder"):
        shutil.rmtree(out / name, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "quality.json", found.to_dict())
    (out / "quality.html").write_text(page, encoding="utf-8")
    made.write(out, about)


def recipe_of(published: PublishedCodes) -> Recipe:
    """The recipe that the codes were made with."""
    return build(Recipe, published.manifest["recipe"], "")


def learned_from(published: PublishedCodes) -> str | None:
    """The hash of the interactions that the codes learned from; None where texts alone made them."""
    return published.manifest["data"].get("interactions")


def with_recipe_of(recipe: Recipe, published: PublishedCodes) -> Recipe:
    """`recipe` with the sections that the codes were made with. Raises `SettingError` where it asks for others, or splits the
    events in another way than the codes did: then the codes could know what the model is asked.
    """
    made = recipe_of(published)
    for name, theirs in made.data.cut.items():
        ours = getattr(recipe.data, name)
        if learned_from(published) is not None and ours != theirs:
            raise SettingError(
                f"data.{name} must be {theirs!r} with these codes, which learned from the training part of that split; got "
                f"{ours!r}. Change it, or make codes with the same split."
            )
    for section in ("text", "tokenizer"):
        if getattr(recipe, section) not in (getattr(Recipe(), section), getattr(made, section)):
            raise SettingError(
                f"The codes were published with another {section} section than the recipe asks for. Leave it out of the "
                "recipe, or make other codes with `genrec tokenize`."
            )
    return replace(recipe, text=made.text, tokenizer=made.tokenizer)


def in_order_of(tables: Tables, published: PublishedCodes) -> Tables:
    """The tables with the catalogue in the order of the codes. Raises `DataError` where the two have other items."""
    rows = tables.catalogue.rows(published.table.item_ids)
    gone, new = int((rows < 0).sum()), len(tables.catalogue) - int((rows >= 0).sum())
    if gone or new:
        raise DataError(
            f"{new} items of the table have no published codes, and {gone} that have are not in the table. New items get "
            "codes with `genrec tokenize --append-to`; items that are gone stay in the table of a fit and are taken out of "
            "the catalogue at serving time."
        )
    return replace(tables, catalogue=Catalogue.from_table(tables.catalogue.table.take(pa.array(rows))))


def _read(items: Any, interactions: Any, recipe: Recipe) -> tuple[Catalogue, Split | None, dict[str, str]]:
    if interactions is None:
        alone = replace(DataConfig(), items_columns=recipe.data.items_columns)
        if recipe.data != alone:
            raise SettingError("The recipe's data section says how to read and split interactions. Give --interactions.")
        catalogue = load_catalogue(items, recipe.data.items_columns)
        return catalogue, None, {"items": table_hash(catalogue.table)} | hash_of_vectors(recipe)
    tables = read_tables(items, interactions, recipe)
    split = split_histories(tables.interactions.histories(tables.catalogue, recipe.data.unknown_items), recipe)
    return tables.catalogue, split, tables.hashes


def _check_folder(out: Path, overwrite: bool) -> None:
    """A place for codes: empty, or with codes that may be replaced. Told before the work, not after."""
    if out.exists() and not out.is_dir():
        raise BundleError(f"{out} is a file. Choose a folder.")
    if not out.exists() or not any(out.iterdir()):
        return
    if not overwrite:
        raise BundleError(f"{out} is not empty. Choose another folder, or pass --overwrite to replace the codes in it.")
    if {path.name for path in out.iterdir()} - OWN:  # what a first run left that was killed is ours, and can go
        read_manifest(out, CODES)
