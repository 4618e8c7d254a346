"""Manifests: a folder that genrec wrote is whole or it is refused.

In: a folder with all its files. Out: `manifest.json`, written last, with a hash of every file and of itself. Bundles and
published codes are such folders.
"""

import hashlib
import json
import os
import platform
from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

import genrec
from genrec.errors import BundleError

MANIFEST = "manifest.json"
WORK = "work"  # checkpoints and caches of a run that is not finished; never part of a manifest


@dataclass(frozen=True)
class Kind:
    """name: what such a folder is called. format: that this genrec reads. verb: of the command line, that makes one; or, with a
    bracket, the call in Python."""

    name: str
    format: int
    verb: str

    def made_by(self, folder: Path) -> str:
        """What makes such a folder, as one writes it."""
        return f"`{self.verb}`" if "(" in self.verb else f"`{self.verb} --out {folder}`"


def write_manifest(folder: Path, kind: Kind, about: dict[str, Any]) -> None:
    """Complete a folder: hash what is there and write the manifest with `about` in it, atomically."""
    files = {name: _describe(folder / name) for name in _files(folder)}
    manifest = {"format": kind.format, "kind": kind.name, "versions": _versions(), **about, "files": files}
    manifest["self"] = self_hash(manifest)
    for name in files:  # weights are written for their owner alone; a bundle is served by somebody else
        (folder / name).chmod(0o644)
    temporary = folder / f"{MANIFEST}.partial"
    write_json(temporary, manifest)
    os.replace(temporary, folder / MANIFEST)


def read_manifest(folder: Path, kind: Kind) -> dict[str, Any]:
    """The manifest of a folder, checked for itself. Raises `BundleError`."""
    path = folder / MANIFEST
    if not path.is_file():
        state = "does not exist" if not folder.is_dir() else f"has no {MANIFEST}"
        hint = f" A run was stopped there: run the same `{kind.verb}` again to go on." if (folder / WORK).is_dir() else ""
        raise BundleError(f"{folder} is not a {kind.name}: it {state}.{hint} {kind.made_by(folder)} makes one.")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        intact = manifest.pop("self") == self_hash(manifest)
    except (ValueError, KeyError, AttributeError, TypeError):
        intact = False
    if not intact:
        raise BundleError(f"{path} is truncated or was edited. Copy the {kind.name} again, or make it again.")
    held = manifest.get("kind", "bundle")
    if held != kind.name:
        raise BundleError(f"{folder} is a {held}, not a {kind.name}. `{kind.verb}` makes one.")
    if manifest["format"] != kind.format:
        raise BundleError(
            f"{folder} has {kind.name} format {manifest['format']}; genrec {genrec.__version__} reads format {kind.format}."
        )
    return manifest


def check_files(
    folder: Path, manifest: dict[str, Any], verify: Literal["full", "size"] = "full", editable: Collection[str] = ()
) -> None:
    """Compare the files with the manifest: their hashes ("full") or only their sizes. `editable` files only have to be there.

    Raises `BundleError` naming the file that is missing, truncated or edited.
    """
    whole = f"the {manifest.get('kind', 'bundle')} {folder}"
    for name, wanted in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise BundleError(f"{name} is missing from {whole}. Copy it again, or make it again.")
        if name in editable:
            continue
        size = path.stat().st_size
        if size != wanted["bytes"]:
            raise BundleError(
                f"{name} in {whole} was truncated or edited: it has {size} bytes, it was saved with {wanted['bytes']}."
            )
        if verify == "full" and _hash_file(path) != wanted["sha256"]:
            raise BundleError(f"{name} in {whole} was edited: its hash is not the one it was saved with.")


def self_hash(manifest: dict[str, Any]) -> str:
    """Names a folder by all that its manifest says: 64 hex digits."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Readable JSON."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _files(folder: Path) -> list[str]:
    names = (p.relative_to(folder) for p in sorted(folder.rglob("*")) if p.is_file())
    return [n.as_posix() for n in names if n.parts[0] != WORK and not n.name.startswith(MANIFEST)]


def _describe(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": _hash_file(path)}


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _versions() -> dict[str, str]:
    found = {"genrec": genrec.__version__, "python": platform.python_version(), "pyarrow": pa.__version__}
    for name in ("torch", "transformers", "peft", "numpy", "faiss-cpu", "scikit-learn", "sentence-transformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
