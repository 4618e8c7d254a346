"""The command line, as a person meets it."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from quick import QUICK

from genrec.bundle import read_bundle
from genrec.cli import VERBS, main
from genrec.data.synthetic import write_shop

FLAGS = [part for name, value in QUICK.items() for part in (f"--{name.replace('_', '-')}", str(value))]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    write_shop(folder, users=200, items=80, seed=1)
    return folder


def both(tables: Path) -> list[str]:
    return ["--items", str(tables / "items.csv"), "--interactions", str(tables / "interactions.csv")]


def test_the_module_runs_and_says_its_version() -> None:
    done = subprocess.run([sys.executable, "-m", "genrec.cli", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("genrec 0.")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_examples(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    assert f"examples:\n  genrec {verb}" in capsys.readouterr().out


def test_help_of_fit_lists_every_setting_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "--training.epochs X passes over the data at most" in shown
    assert "--tokenizer.collision-policy" in shown


def test_a_mistyped_verb_or_flag_names_the_nearest(capsys: pytest.CaptureFixture[str], tables: Path) -> None:
    with pytest.raises(SystemExit):
        main(["validat"])
    assert "Did you mean 'validate'" in capsys.readouterr().err
    assert main(["fit", *both(tables), "--out", "x", "--epochs", "3"]) == 2
    assert "There is no flag --epochs. Did you mean '--training.epochs'" in capsys.readouterr().err
    assert main(["fit", *both(tables), "--out", "x", "--training.epoch", "3"]) == 2
    assert "Did you mean '--training.epochs'" in capsys.readouterr().err


def test_validate_prints_a_report_and_tells_by_its_exit_code(
    tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", *both(tables)]) == 0
    assert "users" in capsys.readouterr().out
    broken = tmp_path / "events.csv"
    broken.write_text("user_id,item_id\nu1,nope\nu1,\n")
    assert main(["validate", "--items", str(tables / "items.csv"), "--interactions", str(broken)]) == 1
    assert "nope" in capsys.readouterr().out


def test_a_missing_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "--items", "nowhere.csv", "--interactions", "nowhere.csv"]) == 2
    assert "nowhere.csv" in capsys.readouterr().err


def test_two_csv_files_with_their_own_column_names_become_recommendations(
    tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("items.csv", "interactions.csv"):
        text = (tables / name).read_text(encoding="utf-8").replace("item_id", "sku", 1).replace("user_id", "customer", 1)
        (tmp_path / name).write_text(text, encoding="utf-8")
    mapped = ["--columns", "item_id=sku", "--columns", "user_id=customer"]
    assert main(["validate", *both(tmp_path), *mapped]) == 0
    out = tmp_path / "run"
    assert main(["fit", *both(tmp_path), *mapped, "--out", str(out), *FLAGS]) == 0
    assert read_bundle(out).manifest["recipe"]["data"]["items_columns"] == {"item_id": "sku"}
    capsys.readouterr()
    assert (
        main(["evaluate", str(out), "--interactions", str(tmp_path / "interactions.csv"), "--out", str(tmp_path / "told")]) == 0
    )
    assert "popularity" in capsys.readouterr().out
    assert json.loads((tmp_path / "told" / "evaluation.json").read_text())["results"][0]["name"] == "genrec"
    assert main(["recommend", str(out), "--interactions", str(tmp_path / "interactions.csv"), *mapped, "-k", "3"]) == 0
    assert "user " in capsys.readouterr().out


def test_recommend_prints_and_writes(bundle: Path, tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = read_bundle(bundle).catalogue.item_ids
    assert main(["recommend", str(bundle), "--history", f"{ids[0]},{ids[1]}", "--history", ids[2], "-k", "4"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("user ") == 2
    assert len(printed.splitlines()) == 10
    events = str(tables / "interactions.csv")
    with open(events, encoding="utf-8") as file:
        user = next(csv.DictReader(file))["user_id"]
    for name in ("r.parquet", "r.csv", "r.jsonl"):
        out = str(tmp_path / name)
        assert main(["recommend", str(bundle), "--interactions", events, "--user", user, "-k", "2", "--out", out]) == 0
    assert pq.read_table(tmp_path / "r.parquet").num_rows == 2
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 2
    assert (tmp_path / "r.csv").read_text().startswith('"user_id","rank","item_id","score"')


def test_recommend_takes_rules_and_says_why(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    catalogue = read_bundle(bundle).catalogue
    history = ["--history", ",".join(catalogue.item_ids[:3])]
    rules = ["--where", "price < 15", "--max-per", "brand=1", "-k", "4"]
    assert main(["recommend", str(bundle), *history, *rules]) == 0
    ids = [line.split()[2] for line in capsys.readouterr().out.splitlines()[1:]]
    fields = catalogue.fields(catalogue.rows(ids))
    assert len(fields) == len({item["brand"] for item in fields}) == 4
    assert all(item["price"] < 15 for item in fields)
    assert main(["recommend", str(bundle), *history, *rules, "--explain"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("because of") == 4 * 3
    assert printed.count("<c0_") == 4


def test_evaluate_says_how_much_is_illegal_without_the_catalogue(
    bundle: Path, tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events, numbers = str(tables / "interactions.csv"), tmp_path / "numbers.json"
    arguments = ["evaluate", str(bundle), "--interactions", events, "--max-questions", "20", "--no-baselines"]
    assert main([*arguments, "--illegal-rate", "--out", str(numbers)]) == 0
    [result] = json.loads((numbers / "evaluation.json").read_text())["results"]
    assert 0 < result["illegal_rate"] <= 1
    assert f"Without the catalogue, {result['illegal_rate']:.2%} of the 10 best" in capsys.readouterr().out


def test_evaluations_are_saved_compared_and_put_on_a_leaderboard(
    bundle: Path, tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board, page = tmp_path / "board.jsonl", tmp_path / "page.html"
    arguments = ["evaluate", str(bundle), "--interactions", str(tables / "interactions.csv"), "--max-questions", "40"]
    for name, width in (("wide", "20"), ("narrow", "10")):
        more = ["--beam-width", width, "--out", str(tmp_path / name), "--leaderboard", str(board)]
        assert main([*arguments, *more]) == 0
    assert "evaluation.html" in capsys.readouterr().out
    assert main(["compare", str(tmp_path / "wide"), str(tmp_path / "narrow"), "--out", str(page)]) == 0
    printed = capsys.readouterr().out
    assert [printed.count(f"| {name} ") for name in ("wide", "narrow", "popularity")] == [1, 1, 1]
    assert "reference" in printed
    assert page.read_text().count("<svg") == 2
    assert main(["compare", "--leaderboard", str(board)]) == 0
    assert "cooccurrence-tfidf" in capsys.readouterr().out
    assert len(board.read_text().splitlines()) == 6
    for wrong, message in (
        ([str(tmp_path / "nowhere")], "holds no evaluation"),
        ([], "nothing to compare"),
        ([str(tmp_path / "wide"), "--reference", "wid"], "Did you mean 'wide'"),
        ([str(tmp_path / "wide"), "--out", str(tmp_path / "no" / "page.html")], "its folder does not exist"),
        ([str(tmp_path / "wide"), "--leaderboard", str(board)], "not both"),
    ):
        assert main(["compare", *wrong]) == 2
        assert message in capsys.readouterr().err
    board.write_text("{}\n")
    assert main([*arguments, "--leaderboard", str(board)]) == 2
    assert "Line 1 of" in capsys.readouterr().err
    assert board.read_text() == "{}\n"


def test_user_vectors_are_probed_where_that_is_asked_for(
    bundle: Path, tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events, told = str(tables / "interactions.csv"), tmp_path / "told"
    arguments = ["evaluate", str(bundle), "--interactions", events, "--max-questions", "80", "--no-baselines"]
    assert main([*arguments, "--probes", "--out", str(told)]) == 0
    [header] = [line for line in capsys.readouterr().out.splitlines() if "question " in line and "floor" in line]
    assert [cell.strip() for cell in header.split("|")[6:10]] == ["model", "mean item", "last item", "random"]
    found = json.loads((told / "evaluation.json").read_text())["probes"]
    assert {probe["group"] for probe in found} == {"sequence understanding", "action prediction", "interest perception"}
    assert "What user vectors hold" in (told / "evaluation.html").read_text()


def test_seeds_of_one_model_are_pooled_by_compare(
    bundle: Path, tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", str(bundle), "--interactions", str(tables / "interactions.csv"), "--max-questions", "20"]
    seed = tmp_path / "seed0"
    assert main([*arguments, "--out", str(seed)]) == 0
    other = shutil.copytree(seed, tmp_path / "seed1")
    numbers = json.loads((other / "evaluation.json").read_text())
    numbers["about"]["bundle"] = "of another fit"
    (other / "evaluation.json").write_text(json.dumps(numbers))
    assert main(["compare", "--pool", f"shop={seed},{other}", "--reference", "popularity", "-k", "7"]) == 0
    [shop] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| shop ")]
    assert [cell.strip() for cell in shop.split("|")[-3:-1]] == ["2", "± 0.0000"]
    for wrong, message in (
        ([f"shop={seed},{seed / '..' / 'seed0'}"], "pools the same fit twice"),
        ([f"shop={seed}", "--pool", f"other={seed}"], "is in two pools"),
        (["shop="], "NAME=FOLDER,FOLDER,..., such as"),
    ):
        assert main(["compare", "--pool", *wrong]) == 2
        assert message in capsys.readouterr().err


def test_evaluate_can_ask_warm_questions_alone_and_be_strict(
    bundle: Path, tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", str(bundle), "--max-questions", "20", "--no-baselines", "--strict", "--interactions"]
    assert main([*arguments, str(tables / "interactions.csv"), "--questions", "warm"]) == 0
    assert "future-of-others: " in capsys.readouterr().err
    assert main([*arguments, str(tables / "interactions.csv"), "--questions", "cold"]) == 2
    assert "is cold: their targets all have training events" in capsys.readouterr().err
    fewer = tmp_path / "events.csv"
    fewer.write_text("".join((tables / "interactions.csv").read_text().splitlines(keepends=True)[:900]))
    assert main([*arguments, str(fewer)]) == 2
    assert "The evaluation leaks, so it was not run:\nother-events: " in capsys.readouterr().err


def test_recommend_with_nothing_allowed_says_so(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = read_bundle(bundle).catalogue.item_ids
    code = main(["recommend", str(bundle), "--history", ids[0], "--only-item-ids", ids[0], "--exclude-item-ids", ids[0]])
    assert code == 0
    assert "no recommendations" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give either --history"),
        (["--history", "nope"], "'nope'"),
        (["--history", "a", "--columns", "x"], "--columns must be NAME=YOURS"),
        (["--interactions", "EVENTS", "--user", "nobody"], "got 'nobody'"),
        (["--interactions", "EVENTS", "--columns", "usr_id=x"], "Did you mean 'user_id'"),
        (["--interactions", "EVENTS", "--out", "x.xlsx"], "must end in .parquet, .csv or .jsonl"),
        (["--history", "", "--where", "pric < 5"], "no column 'pric'. Did you mean 'price'"),
        (["--history", "", "--max-per", "brand"], "--max-per must be COLUMN=N, such as brand=2, got 'brand'"),
        (["--history", "", "--max-per", "brnd=2"], "Did you mean 'brand'"),
        (["--interactions", "EVENTS", "--explain"], "--explain prints; it goes with --history"),
        (["--history", "", "stray"], "There is no place for 'stray'"),
    ],
)
def test_mistakes_in_recommend_are_explained(
    bundle: Path, tables: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(tables / "interactions.csv") if a == "EVENTS" else a for a in arguments]
    assert main(["recommend", str(bundle), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_is_no_bundle_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", str(tmp_path), "--history", "a"]) == 2
    assert "is not a bundle" in capsys.readouterr().err
