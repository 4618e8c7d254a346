"""The shape of the repository: floors of imports, folders that stay free of code, file sizes, docstrings, banned calls."""

import ast
import graphlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LONGEST = 600  # lines; a longer file is two things
BY_NAME = {path.relative_to(ROOT).as_posix(): path for path in sorted((ROOT / "genrec").rglob("*.py"))}
SOURCES = {name: path.read_text(encoding="utf-8") for name, path in BY_NAME.items()}


def module_name(path: str) -> str:
    """genrec/data/readers.py -> genrec.data.readers; genrec/data/__init__.py -> genrec.data"""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


MODULES = {module_name(path): source for path, source in SOURCES.items()}


def read_floors(page: str) -> dict[str, tuple[int, str]]:
    """Name -> (floor, the unit it counts as), from the block under "## Floors" of docs/design.md.

    A folder is a unit; the single files of one floor are one unit together, so they may use one another.
    """
    floors = {}
    for line in page.split("## Floors")[1].split("```")[1].strip().splitlines():
        number, *names = line.split()
        for name in names:
            floors[name.removesuffix(".py").removesuffix("/")] = (int(number), name if name.endswith("/") else "files")
    return floors


FLOORS = read_floors((ROOT / "docs" / "design.md").read_text(encoding="utf-8"))


def imports(source: str, modules: Mapping[str, str], nodes: Iterator[ast.AST] | None = None) -> Iterator[str]:
    """Modules of genrec that the source imports, anywhere in it or in `nodes` only; relative imports as "." and the rest."""
    for node in nodes or ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "genrec")
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield "." * node.level + (node.module or "")
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "genrec":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in modules or node.module == "genrec" else node.module


def broken_floors(modules: Mapping[str, str], floors: Mapping[str, tuple[int, str]]) -> list[str]:
    """One line per module without a place and per import that goes up, sideways, or through genrec/__init__.py."""
    broken = []
    for module, source in modules.items():
        if module == "genrec":
            continue  # the public names, loaded when first used (tests/test_imports.py)
        unit = module.split(".")[1]
        if unit not in floors:
            broken.append(f"{module} has no place in docs/design.md")
            continue
        for target in imports(source, modules):
            other = target.split(".")[1] if target.count(".") else ""
            if target.startswith("."):
                broken.append(f"{module} imports {target}: write genrec.x.y in full")
            elif target in ("genrec", "genrec.__version__"):
                continue
            elif other not in floors:
                broken.append(f"{module} imports {target}, which has no place in docs/design.md: import it from its own module")
            elif floors[other] != floors[unit] and floors[other][0] >= floors[unit][0]:
                broken.append(f"{module} (floor {floors[unit][0]}) imports {target} (floor {floors[other][0]})")
    return broken


def unsafe(source: str) -> list[str]:
    """What the source does that can run a stranger's code, one line each."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name in UNSAFE_MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module in UNSAFE_MODULES:
            found.append(node.module)
        elif isinstance(node, ast.Call):
            call = ast.unparse(node.func)
            found += [call] if call in UNSAFE_CALLS else []
            for keyword in node.keywords:
                value = keyword.value.value if isinstance(keyword.value, ast.Constant) else "not a constant"
                if keyword.arg in SAFE_VALUES and value is not SAFE_VALUES[keyword.arg]:
                    found.append(f"{keyword.arg}={ast.unparse(keyword.value)}")
    return found


UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "os.system"}
SAFE_VALUES = {"trust_remote_code": False, "allow_pickle": False, "weights_only": True, "shell": False}


def test_imports_run_one_way() -> None:
    assert not broken_floors(MODULES, FLOORS)


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("genrec.data.new", "from genrec.codes import CodeTable"),
        ("genrec.data.new", "def f():\n    import genrec.fit"),
        ("genrec.tokenizers.new", "from genrec import Recommender"),
        ("genrec.tokenizers.new", "from genrec.models.tokens import TokenLayout"),
        ("genrec.bundle", "from genrec.decoding.index import CatalogueIndex"),
        ("genrec.evaluation.new", "from genrec.training import trainer"),
        ("genrec.training.new", "from .examples import Collator"),
        ("genrec.nowhere", "x = 1"),
    ],
)
def test_an_import_up_or_sideways_or_a_module_without_a_floor_is_found(module: str, line: str) -> None:
    assert len(broken_floors({module: line}, FLOORS)) == 1


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("genrec.training.new", "from genrec.evaluation.metrics import ndcg_at"),
        ("genrec.training.new", "from genrec.training.examples import Collator"),
        ("genrec.fit", "from genrec import recipe"),
        ("genrec.bundle", "from genrec import __version__"),
        ("genrec.codes", "import numpy as np\nfrom tokenizers import Tokenizer"),
    ],
)
def test_imports_down_and_within_a_unit_are_fine(module: str, line: str) -> None:
    assert not broken_floors({module: line}, FLOORS)


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    graph = {
        name: set(imports(source, MODULES, iter(ast.parse(source).body))) - {name, "genrec"} for name, source in MODULES.items()
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError with the circle


@pytest.mark.parametrize("folder", [ROOT, ROOT / "tests"], ids=["root", "tests"])
def test_import_tokenizers_is_hugging_faces(folder: Path) -> None:
    """`python -c` puts its working folder first on the path, so a package called tokenizers there would win."""
    code = "import tokenizers; print(tokenizers.Tokenizer.__module__, tokenizers.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    module, file = done.stdout.strip().split(" ", 1)
    assert module.startswith("tokenizers")
    assert {"site-packages", "dist-packages"} & set(Path(file).parts)


@pytest.mark.parametrize("folder", ["tokenizers", "training", "serving"])
def test_folders_for_people_have_a_readme_and_no_python(folder: str) -> None:
    assert (ROOT / folder / "README.md").is_file()
    assert not sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("folder", ["notebooks", "benchmarks", "docs"])
def test_every_other_folder_says_what_it_is_for(folder: str) -> None:
    assert (ROOT / folder / "README.md").is_file()


def test_every_benchmark_can_be_started() -> None:
    """Their own tests are few: what is moved under them is only noticed by whoever runs them."""
    scripts = sorted((ROOT / "benchmarks").glob("*.py"))
    load = "import runpy, sys; [runpy.run_path(path, run_name='loaded') for path in sys.argv[1:]]"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])}
    done = subprocess.run(
        [sys.executable, "-c", load, *map(str, scripts)], env=environment, capture_output=True, text=True, check=False
    )
    assert scripts
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_module_says_what_it_is_for() -> None:
    assert [name for name, source in SOURCES.items() if not ast.get_docstring(ast.parse(source))] == []


def test_no_file_is_two_things() -> None:
    tests = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")}
    too_long = {name: source.count("\n") for name, source in (SOURCES | tests).items() if source.count("\n") > LONGEST}
    assert too_long == {}


def test_nothing_in_genrec_runs_a_strangers_code() -> None:
    assert {name: unsafe(source) for name, source in SOURCES.items() if unsafe(source)} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "AutoModel.from_pretrained(path, trust_remote_code=True)",
        "AutoModel.from_pretrained(path, trust_remote_code=given)",
        "yaml.load(text, Loader=yaml.Loader)",
        "np.load(path, allow_pickle=True)",
        "torch.load(path, weights_only=False)",
        "subprocess.run(text, shell=True)",
        "eval(text)",
    ],
)
def test_running_a_strangers_code_is_found(source: str) -> None:
    assert len(unsafe(source)) == 1


def test_safe_lookalikes_pass() -> None:
    assert not unsafe("model.eval()\nyaml.safe_load(text)\nnp.load(path, allow_pickle=False)\nre.compile('eval(')")


def test_links_between_pages_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    pages += [ROOT / folder / "README.md" for folder in ("tokenizers", "training", "serving", "notebooks", "benchmarks")]
    dead = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in pages
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if "://" not in link and not (page.parent / link).exists()
    ]
    assert dead == []


def test_recipes_named_anywhere_exist() -> None:
    pages = [path.read_text(encoding="utf-8") for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]]
    named = {name for text in [*SOURCES.values(), *pages] for name in re.findall(r"training/recipes/\w+\.yaml", text)}
    assert sorted(name for name in named if not (ROOT / name).is_file()) == []


def test_scripts_can_be_run() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
