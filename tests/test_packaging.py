"""What a fresh machine gets: dependencies with reasons, one tested set of versions, and two commands that work."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads(TEXT)
CORE = PYPROJECT["project"]["dependencies"]
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
EVERYTHING = [*PYPROJECT["build-system"]["requires"], *CORE, *(pin for extra in EXTRAS.values() for pin in extra)]


def constraints() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pins}


def make(*arguments: str) -> str:
    """What make prints. Not as a part of the make that may be running these tests."""
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *arguments], cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("pin", EVERYTHING)
def test_every_pin_says_why(pin: str) -> None:
    lines = [line for line in TEXT.splitlines() if f'"{pin}"' in line]
    assert lines
    assert all(re.search(r"#\s*\S.{3,}", line) for line in lines)


@pytest.mark.parametrize("pin", CORE)
def test_every_core_dependency_has_a_lower_and_an_upper_bound(pin: str) -> None:
    operators = {specifier.operator for specifier in Requirement(pin).specifier}
    assert operators == {">=", "<"}


TESTED = ["text", "baselines", "chat", "mcp", "serving", "dev"]


@pytest.mark.parametrize("pin", [*CORE, *(pin for extra in TESTED for pin in EXTRAS[extra])])
def test_the_tested_set_of_versions_keeps_the_bounds(pin: str) -> None:
    requirement = Requirement(pin)
    assert requirement.specifier.contains(constraints()[canonicalize_name(requirement.name)])


def test_one_torch_serves_the_tests_and_vllm_on_cpu() -> None:
    [torch] = [Requirement(pin) for pin in EXTRAS["vllm-cpu"] if pin.startswith("torch")]
    assert torch.specifier.contains(constraints()["torch"])


def test_only_the_package_genrec_is_installed() -> None:
    assert PYPROJECT["tool"]["setuptools"]["packages"]["find"] == {"include": ["genrec", "genrec.*"]}


def test_every_file_beside_the_code_is_put_into_the_package() -> None:
    data = PYPROJECT["tool"]["setuptools"]["package-data"]
    named = {
        path for package, kinds in data.items() for kind in kinds for path in ROOT.joinpath(*package.split(".")).glob(kind)
    }
    there = {path for path in (ROOT / "genrec").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert ROOT / "genrec" / "serving" / "page" / "index.html" in there
    assert there == named


def test_make_alone_shows_the_commands() -> None:
    shown = make()
    for command in ("demo", "test", "lint", "format", "page", "clean"):
        assert f"make {command} " in shown


@pytest.mark.parametrize("command", ["demo", "test"])
def test_both_commands_make_their_own_environment(command: str) -> None:
    """-W: as if pyproject.toml were newer than the environment; -n: print, do not run."""
    plan = make("-n", "-W", "pyproject.toml", command)
    assert "-m venv .venv" in plan
    assert "-c constraints.txt -e '.[text,baselines,chat,serving,postgresql,ray,dev]'" in plan


def test_make_test_checks_style_types_tests_and_coverage() -> None:
    plan = make("-n", "test")
    for step in ("ruff check", "ruff format --check", "mypy genrec", "pytest", "--cov"):
        assert step in plan
    assert PYPROJECT["tool"]["coverage"]["report"]["fail_under"] >= 90
    assert PYPROJECT["tool"]["coverage"]["run"]["source"] == ["genrec"]


def test_make_demo_runs_the_demo() -> None:
    assert "genrec.cli demo" in make("-n", "demo")


def test_ci_runs_what_the_readme_promises() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert ci.splitlines()[-1] == "make test"
    assert "set -euo pipefail" in ci
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {"make demo", "make test"} <= {line.strip() for line in readme.splitlines()}


def test_an_old_python_is_refused_with_what_to_do(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.10.4" && exit 0\nexit 1\n', encoding="utf-8")
    old.chmod(0o755)
    with pytest.raises(subprocess.CalledProcessError) as error:
        make("test", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}")
    assert "needs Python 3.11 or newer, got Python 3.10.4" in error.value.stdout + error.value.stderr
