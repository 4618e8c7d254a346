"""Keys, scopes and rates."""

import json
import stat
from pathlib import Path

import pytest

from genrec.errors import SettingError
from genrec.serving.security import DeniedError, Gate, TooFastError, make_key, read_keys


def test_a_key_opens_what_it_may_and_the_file_does_not_hold_it(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    secret = make_key(path, "web", ("recommend", "events"))
    other = make_key(path, "admin", ("admin",))
    assert secret != other
    assert secret not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    gate = Gate(read_keys(path))
    assert gate.enter(f"Bearer {secret}", "events") == "web"
    assert gate.enter(f"bearer {other}", "admin") == "admin"
    with pytest.raises(DeniedError, match="may recommend, events; this needs 'admin'") as caught:
        gate.enter(f"Bearer {secret}", "admin")
    assert caught.value.known


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic abc", "Bearer gr-wrong", "Bearer \u00fc", "gr-x"])
def test_anything_else_is_refused(tmp_path: Path, header: str | None) -> None:
    make_key(tmp_path / "keys.json", "web")
    with pytest.raises(DeniedError) as caught:
        Gate(read_keys(tmp_path / "keys.json")).enter(header, "recommend")
    assert not caught.value.known


def test_a_rate_is_kept_and_refills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("genrec.serving.security.time.monotonic", lambda: clock[0])
    secret = make_key(tmp_path / "keys.json", "web", rate=2.0)
    gate = Gate(read_keys(tmp_path / "keys.json"))
    for _ in range(2):
        gate.enter(f"Bearer {secret}", "recommend")
    with pytest.raises(TooFastError, match="2 requests a second") as caught:
        gate.enter(f"Bearer {secret}", "recommend")
    assert caught.value.retry_after == pytest.approx(0.5)
    clock[0] += 0.5
    gate.enter(f"Bearer {secret}", "recommend")
    with pytest.raises(TooFastError):
        gate.enter(f"Bearer {secret}", "recommend")


def test_without_keys_everybody_may() -> None:
    assert Gate(None).enter(None, "admin") == "anonymous"


def test_impossible_keys_and_files_are_explained(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    with pytest.raises(SettingError, match="There is no key file"):
        read_keys(path)
    with pytest.raises(SettingError, match="scope must be one of"):
        make_key(path, "web", ("everything",))
    with pytest.raises(SettingError, match="rate must be 0"):
        make_key(path, "web", rate=-1)
    make_key(path, "web")
    with pytest.raises(SettingError, match="has a key named 'web' already"):
        make_key(path, "web")
    for content in ("no json", "{}", json.dumps([{"name": "x"}]), json.dumps([1])):
        path.write_text(content)
        with pytest.raises(SettingError, match="not a key file"):
            read_keys(path)
