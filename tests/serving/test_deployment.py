"""The files in serving/: what they name exists, and what a server counts is what they watch."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from genrec.cli import main
from genrec.serving.metrics import Metrics

SERVING = Path(__file__).parents[2] / "serving"
ALERTS = yaml.safe_load((SERVING / "monitoring" / "alerts.yaml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((SERVING / "monitoring" / "grafana" / "genrec.json").read_text())
EXPRESSIONS = [rule["expr"] for rule in ALERTS] + [
    target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]
]


def series() -> set[str]:
    """The names of all that a server counts, as Prometheus stores them."""
    registry = CollectorRegistry()
    Metrics(registry)
    names = set()
    for metric in registry.collect():
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}.get(metric.type, [""])
        names |= {metric.name + suffix for suffix in suffixes}
    return names


def test_every_number_that_is_watched_is_counted() -> None:
    used = {name for expression in EXPRESSIONS for name in re.findall(r"genrec_\w+", expression)}
    assert used - series() == set()


def test_every_number_that_is_counted_is_shown() -> None:
    kind = re.compile("(_total|_bucket|_count|_sum)$")
    shown = {kind.sub("", name) for expression in EXPRESSIONS for name in re.findall(r"genrec_\w+", expression)}
    assert {kind.sub("", name) for name in series()} - shown == set()


def test_the_runbook_has_a_section_for_every_alert_and_no_other() -> None:
    text = (SERVING / "runbook.md").read_text()
    assert re.findall(r"^## (Genrec\w+)$", text, re.M) == [rule["alert"] for rule in ALERTS]


def test_panels_do_not_overlap_and_have_numbers_of_their_own() -> None:
    places = [tuple(panel["gridPos"].values()) for panel in DASHBOARD["panels"]]
    assert len({place[:2] for place in places}) == len(places)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((SERVING / name).read_text()))


def flags(capsys: pytest.CaptureFixture[str]) -> set[str]:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    return set(re.findall(r"--[\w-]+", capsys.readouterr().out))


def test_every_option_that_the_files_give_to_genrec_serve_exists(capsys: pytest.CaptureFixture[str]) -> None:
    known = flags(capsys)
    deployment = documents("kubernetes/genrec.yaml")[0]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    command = json.loads(re.search(r"^CMD (\[.*)$", (SERVING / "Dockerfile").read_text(), re.M)[1])
    given = {word for word in [*container["args"], *command] if word.startswith("--")}
    assert given <= known
    assert given >= {"--host", "--keys"}


def test_kubernetes_waits_longer_than_the_server_drains() -> None:
    deployment, service, scaler, budget = documents("kubernetes/genrec.yaml")
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]
    drain = int(container["args"][container["args"].index("--drain") + 1])
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > drain + pause
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == budget["spec"]["selector"]["matchLabels"] == labels
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")} == {
        "/readyz", "/healthz",
    }  # fmt: skip


def test_compose_mounts_only_what_is_there() -> None:
    [compose] = documents("compose.yaml")
    mounted = [volume.split(":")[0] for service in compose["services"].values() for volume in service.get("volumes", [])]
    made_first = {"./keys.json", "./metrics.key"}  # by the commands at the head of the file
    assert {path for path in mounted if path.startswith("./")} - made_first
    for path in mounted:
        assert path in made_first or not path.startswith("./") or (SERVING / path).exists(), path
    head = (SERVING / "compose.yaml").read_text().split("services:")[0]
    assert all(path.removeprefix("./") in head for path in made_first)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_vllm_script_says_how_it_is_used() -> None:
    done = subprocess.run([str(SERVING / "vllm.sh")], capture_output=True, text=True)
    assert done.returncode != 0
    assert "Usage: serving/vllm.sh BUNDLE" in done.stderr
