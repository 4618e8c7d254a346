"""The ablations of benchmarks/language_model_quality.py on a small shop: every kind of row is fitted and measured, once."""

import importlib.util
from pathlib import Path

import pytest
from quick import QUICK

from genrec.data.synthetic import write_shop

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "language_model_quality.py"
SMALL = QUICK | {
    "tokenizer.rq_kmeans.codebook_size": "auto",
    "tokenizer.rq_kmeans.levels": 2,
    "training.epochs": 1,
    "training.validation_beam": 10,
    "training.max_history": 6,
    "decoding.beam_width": 10,
}


def test_rows_are_fitted_once_and_compared_and_other_settings_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("language_model_quality", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "BASE", script.BASE | {"words": 400, "epochs": 2})
    items, events = write_shop(tmp_path, users=80, items=40, seed=0)
    rows = ["next item", "T5", "DiscRec", "base, text rows, mix", "LoRA"]
    settings = [f"{name}={value}" for name, value in SMALL.items() if not name.startswith("evaluation")]

    def run(*more: str, rows: list[str] = rows) -> str:
        script.main([*rows, "--items", str(items), "--interactions", str(events), "--out", str(tmp_path / "runs"),
                     "--max-questions", "20", "--set", *settings, *more])  # fmt: skip
        return capsys.readouterr().out

    said = run()
    assert "Base: " in said
    comparison = said[said.index("verdict") :]
    for name in [*rows, script.FLOOR]:
        assert name in comparison
    assert "reference" in next(line for line in comparison.splitlines() if line.startswith("| next item"))
    with pytest.raises(SystemExit):
        run(rows=["taught, vector rows"])
    assert "needs --teacher" in capsys.readouterr().err
    assert "taught, vector rows" in run("--teacher", str(tmp_path / "runs" / "next_item-0"), rows=["taught, vector rows"])
    with pytest.raises(SystemExit, match="taught by another bundle"):
        run("--teacher", str(tmp_path / "runs" / "base-text_rows-mix-0"), rows=["taught, vector rows"])
    monkeypatch.setattr(script, "fit", None)  # whoever fits or asks again fails
    monkeypatch.setattr(script, "evaluate", None)
    assert run().splitlines()[-len(rows) :] == said.splitlines()[-len(rows) :], "the same costs of the same fits"
    with monkeypatch.context() as patch:
        patch.setattr(script, "code_hash", lambda: "another")  # whose answers may be others
        with pytest.raises(TypeError):
            run()
    with pytest.raises(SystemExit):
        run("training.epochs=2")
    assert "another recipe" in capsys.readouterr().err
