"""A one-pass bundle behind the same server: the facade's answers, new items, a restart."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from quick import QUICK
from servers import Running

from genrec.adapt import adapt
from genrec.data.catalogue import Catalogue
from genrec.data.interactions import Interactions
from genrec.data.synthetic import make_shop
from genrec.fit import fit
from genrec.recipe import load_recipe
from genrec.recommender import Recommender
from genrec.serving.client import Client, ServerError


@pytest.fixture(scope="module")
def one_pass(tmp_path_factory: pytest.TempPathFactory, shop: tuple[Catalogue, Interactions]) -> Path:
    settings = {"model.architecture": "one-pass", "tokenizer.collision_policy": "shared", "one_pass.widths": [8]}
    recipe = load_recipe(overrides=QUICK | settings)
    return fit(shop[0].table, shop[1].table, tmp_path_factory.mktemp("served") / "shop", recipe)


def test_the_server_answers_as_the_facade_and_knows_new_items_after_a_restart(
    one_pass: Path, start: Callable[..., Running]
) -> None:
    recommender = Recommender.load(one_pass)
    ids = recommender.bundle.catalogue.item_ids.tolist()
    [expected] = recommender.recommend([ids[:3]], k=5, where="price < 20", explain=True)
    new = {"item_id": "new", "title": "Something that nobody has bought"}
    with Client(start(bundles={"shop": one_pass}).url) as client:
        [answer] = client.recommend([ids[:3]], k=5, where="price < 20", explain=True)
        assert [item.item_id for item in answer.items] == [item.item_id for item in expected]
        assert [item.score for item in answer.items] == pytest.approx([item.score for item in expected], abs=1e-4)
        with pytest.raises(ServerError, match="this bundle scores every item"):
            client.recommend([[]], beam_width=5)
        client.add_items([new])
        [before] = client.recommend([["new"]], k=81, exclude_seen=False)
        assert "new" in {item.item_id for item in before.items}
    with Client(start(bundles={"shop": one_pass}).url) as client:
        [after] = client.recommend([["new"]], k=81, exclude_seen=False)
    assert [item.item_id for item in after.items] == [item.item_id for item in before.items]
    assert [item.score for item in after.items] == pytest.approx([item.score for item in before.items], abs=1e-4)


def test_a_shop_that_the_model_never_saw_is_served(
    shop: tuple[Catalogue, Interactions], tmp_path: Path, start: Callable[..., Running]
) -> None:
    changes = {"model.architecture": "one-pass", "tokenizer.collision_policy": "shared", "text.collaborative_width": 0}
    recipe = load_recipe(overrides=QUICK | changes | {"one_pass.parts": ["codes", "vectors"], "evaluation.baselines": []})
    other = make_shop(users=10, items=40, seed=9)[0]
    adapted = adapt(fit(shop[0].table, shop[1].table, tmp_path / "shop", recipe), other.table, tmp_path / "other")
    ids = other.item_ids.tolist()
    [expected] = Recommender.load(adapted).recommend([ids[:2]], k=5)
    with Client(start(bundles={"other": adapted}).url) as client:
        [answer] = client.recommend([ids[:2]], k=5)
        assert [item.item_id for item in answer.items] == [item.item_id for item in expected]
        client.add_items([{"item_id": "new", "title": "Something that nobody has bought"}])
        [found] = client.recommend([["new"]], k=41, exclude_seen=False)
    assert {item.item_id for item in found.items} == {*ids, "new"}


def test_the_server_scores_at_the_width_that_the_bundle_says(
    one_pass: Path, start: Callable[..., Running], tmp_path: Path
) -> None:
    narrow = tmp_path / "narrow"
    shutil.copytree(one_pass, narrow)
    serving = json.loads((narrow / "serving.json").read_text()) | {"width": 8}
    (narrow / "serving.json").write_text(json.dumps(serving))
    history = Recommender.load(one_pass).bundle.catalogue.item_ids[:3].tolist()
    server = start(bundles={"narrow": narrow, "whole": one_pass})
    for model, width in (("narrow", 8), ("whole", 32)):
        [expected] = Recommender.load(one_pass, width=width).recommend([history], k=5)
        with Client(server.url, model=model) as client:
            [answer] = client.recommend([history], k=5)
        assert [item.item_id for item in answer.items] == [item.item_id for item in expected]
        assert [item.score for item in answer.items] == pytest.approx([item.score for item in expected], abs=1e-4)
