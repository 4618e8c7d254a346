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
