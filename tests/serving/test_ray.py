"""Replicas on a Ray cluster of several nodes (local processes, real Ray): one API, one store, nodes that die."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="the extra `ray` is not installed here")

import httpx
import ray
import yaml
from pydantic import ValidationError
from ray import serve
from ray.cluster_utils import Cluster
from ray.serve.schema import ServeDeploySchema
from servers import free_port

from genrec import Recommender
from genrec.errors import SettingError
from genrec.serving.client import Client, ServerError
from genrec.serving.ray import ReplicaSettings, application


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head that runs no replica, and two nodes with room for one each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, namespace="genrec", log_to_driver=False)
    yield cluster
    serve.shutdown()
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def url(cluster: Cluster) -> str:
    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    return f"http://127.0.0.1:{port}"


def replicas() -> set[str]:
    """Replicas that answer."""
    running = serve.status().applications["genrec"].deployments["genrec"].replica_states.get("RUNNING", 0)
    names = {actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)}
    found = {name for name in names if name.startswith("SERVE_REPLICA::genrec")}
    return found if len(found) == running else set()


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 1800  # only so that a mistake ends; a busy machine is none
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def run(bundle: Path, store: Path, **settings: int) -> None:
    asked = ReplicaSettings(bundles={"shop": str(bundle)}, store=f"sqlite:///{store}", **settings)
    serve.run(application(asked), name="genrec", route_prefix="/")


def test_replicas_on_several_nodes_answer_alike_share_what_they_are_told_and_survive_a_node(
    cluster: Cluster, url: str, bundle: Path, tmp_path: Path
) -> None:
    run(bundle, tmp_path / "store.db", min_replicas=2, max_replicas=2)
    wait_until(lambda: len(replicas()) == 2)  # a node has room for one: they are on two
    recommender = Recommender.load(bundle)
    ids = recommender.bundle.catalogue.item_ids.tolist()
    with Client(url) as client:
        expected = recommender.recommend([ids[:3]], k=10, where="price < 20")[0]
        for _ in range(10):
            [answer] = client.recommend([ids[:3]], k=10, where="price < 20")
            assert [item.item_id for item in answer.items] == [item.item_id for item in expected]
        client.send_events([{"user_id": "u", "item_id": item_id} for item_id in ids[:3]])
        for _ in range(10):
            [answer] = client.recommend(user_ids=["u"], k=10, where="price < 20")
            assert [item.item_id for item in answer.items] == [item.item_id for item in expected]
        gone = expected[0].item_id
        assert client.remove_items([gone]) == 1

        def all_know(version: int) -> bool:
            """Ray may send many requests in a row to one replica. So this says little of the other: it has two seconds."""
            try:
                answers = [client.recommend([ids[:3]], k=10)[0] for _ in range(50)]
            except ServerError:  # requests on their way to a node that died
                return False
            assert all(answer.version == 0 or gone not in {item.item_id for item in answer.items} for answer in answers)
            return all(answer.version == version for answer in answers)

        wait_until(lambda: all_know(1))
        assert client.remove_items([expected[1].item_id]) == 2, "whichever replica it meets, it is made on top of the first"

        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        wait_until(lambda: all_know(2))  # the other node answers
        cluster.add_node(num_cpus=1)
        wait_until(lambda: len(replicas()) == 2)
        for _ in range(20):
            [answer] = client.recommend([ids[:3]], k=10)
            assert answer.version == 2, "a new replica begins with all changes"


def test_more_is_asked_than_one_replica_answers_and_ray_starts_another(
    cluster: Cluster, url: str, bundle: Path, tmp_path: Path
) -> None:
    serve.delete("genrec")  # what another test left would be scaled down only after ten minutes
    while len(cluster.worker_nodes) < 2:
        cluster.add_node(num_cpus=1)
    run(bundle, tmp_path / "store.db", min_replicas=1, max_replicas=2, requests_per_replica=2)
    wait_until(lambda: len(replicas()) == 1)
    stop = threading.Event()
    body = {"histories": [[]] * 10, "k": 50, "beam_width": 80}  # 240 wait: fewer than would be turned away

    def ask() -> None:
        with httpx.Client(timeout=120) as http:
            while not stop.is_set():
                http.post(f"{url}/v1/recommendations", json=body)

    threads = [threading.Thread(target=ask) for _ in range(24)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(replicas()) == 2)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_names_to_answer_to_are_taken_from_the_command_line() -> None:
    assert ReplicaSettings(bundle="x", allow_hosts="shop.local, shop.example").server().allow_hosts == (
        "shop.local",
        "shop.example",
    )


def test_mistakes_are_told_before_anything_is_started() -> None:
    with pytest.raises(ValidationError, match="bundel"):
        ReplicaSettings(bundel="runs/shop")
    with pytest.raises(SettingError, match="port|engine must be one of"):
        application(ReplicaSettings(bundle="runs/shop", engine="tf"))


def test_the_config_file_says_what_the_application_takes() -> None:
    config = yaml.safe_load((Path(__file__).parents[2] / "serving" / "ray" / "serve.yaml").read_text())
    [app] = config["applications"]
    assert app["import_path"] == f"{application.__module__}:{application.__name__}"
    assert ReplicaSettings(**app["args"]).server().bundles == {"shop": Path("/bundles/shop")}
    ServeDeploySchema(**config)
