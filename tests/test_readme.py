"""The README's commands and its Python example, run as they are written (with a quick recipe)."""

import io
import json
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from quick import QUICK

import genrec.fit
from genrec.cli import main
from genrec.data.synthetic import make_shop
from genrec.recipe import Recipe

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
FLAGS = [part for name, value in QUICK.items() for part in (f"--{name.replace('_', '-')}", str(value))]


def blocks(language: str) -> list[str]:
    return [re.sub(r"^   ", "", block, flags=re.M) for block in re.findall(rf"```{language}\n(.*?)```", README, re.S)]


COMMANDS = [line.strip() for block in blocks("bash") for line in block.splitlines() if line.strip().startswith("genrec ")]


@pytest.fixture
def shop_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """items.csv and events.csv as the README names them, with its item ids."""
    catalogue, interactions = make_shop(users=150, items=60, seed=4)
    names = {item: f"B{number:03d}" for number, item in enumerate(catalogue.item_ids, 1)}
    (tmp_path / "items.csv").write_text(
        "item_id,title,brand,price\n"
        + "".join(
            f"{names[row['item_id']]},{row['title']},{row['brand']},{row['price']}\n" for row in catalogue.table.to_pylist()
        )
    )
    (tmp_path / "events.csv").write_text(
        "user_id,item_id\n" + "".join(f"{row['user_id']},{names[row['item_id']]}\n" for row in interactions.table.to_pylist())
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_commands_to_run() -> None:
    verbs = {"validate", "fit", "recommend", "evaluate", "compare", "serve", "chat"}
    assert {shlex.split(command)[1] for command in COMMANDS} == verbs


def test_the_commands_work_in_the_order_of_the_page(
    shop_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in COMMANDS:
        arguments = shlex.split(command)[1:]
        monkeypatch.setattr(sys, "stdin", io.StringIO("something under $20\n/quit\n"))  # what `chat` is told
        if "path/to/llm" in command or arguments[0] == "serve":
            continue  # tests/test_fit.py takes that road with a model it makes; the server is started below
        assert main([*arguments, *(FLAGS if arguments[0] == "fit" else [])]) == 0, command
    assert "Rules: 1. price: below 20." in capsys.readouterr().out
    assert (shop_folder / "recommendations.parquet").exists()
    [serve] = [command for command in COMMANDS if command.startswith("genrec serve ")]
    [curl] = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("curl ")]
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    server = subprocess.Popen([sys.executable, "-m", "genrec.cli", *shlex.split(serve)[1:], "--port", port])
    try:
        # The only changes to the page: a free port, and patience while it starts.
        again = "--retry 100 --retry-connrefused --retry-delay 1 "
        words = shlex.split(curl.replace("localhost:8000", f"127.0.0.1:{port}").replace("curl ", f"curl {again}"))
        answer = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
        [items] = [answer["items"] for answer in answer["answers"]]
        assert len(items) == 3
        assert all(set(item["fields"]) == {"title"} and item["fields"]["title"] for item in items)
    finally:
        server.kill()
        server.wait()


def test_the_python_example_works(
    shop_folder: Path, quick: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(genrec.fit, "Recipe", lambda: quick)
    names: dict = {}
    exec(compile(blocks("python")[0], "README.md", "exec"), names)
    lines = [line for line in capsys.readouterr().out.splitlines() if re.match(r"\d+ B\d{3} -\d", line)]
    assert len(lines) == 10
    exec(compile(blocks("python")[1], "README.md", "exec"), names)
    assert "p = 0." in capsys.readouterr().out
    [items] = names["recommender"].recommend([["B002"]], k=200, beam_width=200)
    found = {item.item_id for item in items}
    assert "B900" in found
    assert "B001" not in found
