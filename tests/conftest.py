"""Shared by all tests: a small synthetic shop and one bundle fitted on it (once per test process)."""

import logging
import os
from pathlib import Path

import pytest
from hypothesis import settings
from quick import QUICK

# Before torch is imported anywhere: worker processes that spin against each other are ten times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from genrec.data.catalogue import Catalogue
from genrec.data.interactions import Interactions
from genrec.data.synthetic import make_shop
from genrec.fit import fit
from genrec.recipe import Recipe, load_recipe

ROOT = Path(__file__).parents[1]
logging.raiseExceptions = False  # servers in threads log when a test's output is closed already: no news, and long
settings.register_profile("genrec", deadline=None)  # a busy machine is no mistake
settings.load_profile("genrec")


@pytest.fixture(scope="session")
def quick() -> Recipe:
    """The smallest recipe that still does everything."""
    return load_recipe(overrides=QUICK)


@pytest.fixture(scope="session")
def shop() -> tuple[Catalogue, Interactions]:
    return make_shop(users=200, items=80, seed=1)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, shop: tuple[Catalogue, Interactions], quick: Recipe) -> Path:
    """A fitted bundle. Shared: tests that change files copy it first."""
    catalogue, interactions = shop
    return fit(catalogue.table, interactions.table, tmp_path_factory.mktemp("runs") / "shop", quick)


@pytest.fixture(scope="session")
def encoder_decoder_bundle(tmp_path_factory: pytest.TempPathFactory, shop: tuple[Catalogue, Interactions]) -> Path:
    """The same with an encoder-decoder (T5) in the place of the decoder."""
    catalogue, interactions = shop
    recipe = load_recipe(overrides=QUICK | {"model.architecture": "encoder-decoder"})
    return fit(catalogue.table, interactions.table, tmp_path_factory.mktemp("runs") / "t5", recipe)


@pytest.fixture(scope="session")
def talking_bundle(tmp_path_factory: pytest.TempPathFactory, shop: tuple[Catalogue, Interactions]) -> Path:
    """A bundle of `talk.yaml` with a tiny stand-in for its language model: it answers in words and items, badly."""
    from worlds import write_llm

    catalogue, interactions = shop
    folder = tmp_path_factory.mktemp("talk")
    llm = write_llm(folder / "llm", [*catalogue.table.column("title").to_pylist(), "You may like. Then try"] * 2)
    recipe = load_recipe(ROOT / "training" / "recipes" / "talk.yaml", {
        "model.pretrained": str(llm), "model.lora_rank": 0, "text.encoder": "tfidf-svd",
        "tokenizer.rq_kmeans.codebook_size": 16, "training.epochs": 2, "training.learning_rate": 5e-3,
        "training.batch_tokens": 2048, "training.validation_users": 20, "decoding.beam_width": 10,
        "evaluation.max_questions": 20, "evaluation.baselines": [],
    })  # fmt: skip
    return fit(catalogue.table, interactions.table, folder / "bundle", recipe)
