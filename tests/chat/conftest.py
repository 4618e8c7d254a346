"""Fixtures of the conversation tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_model import FakeModel, fake_model

from genrec.chat.tools import Toolbox
from genrec.recommender import Recommender


@pytest.fixture
def model() -> Iterator[FakeModel]:
    with fake_model() as server:
        yield server


@pytest.fixture(scope="package")
def recommender(bundle: Path) -> Recommender:
    """Shared: tests that change the catalogue load their own."""
    return Recommender.load(bundle)


@pytest.fixture
def tools(recommender: Recommender) -> Toolbox:
    return Toolbox(recommender)
