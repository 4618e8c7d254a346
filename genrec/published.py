"""Published codes: a folder that holds a catalogue's codes and all that is needed to give codes to items that come later.

In: what `genrec tokenize` made. Out: a folder with the code table, the catalogue, the item tokenizer and embedder, item vectors
and the quality report. Codes that were published never move: `genrec tokenize --append-to` makes the next generation in a new
folder, and `genrec fit --codes` trains on a generation.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from safetensors.numpy import load_file, save_file

from genrec.codes import CodeTable
from genrec.data.catalogue import Catalogue
from genrec.embedding.fused import ItemEmbedder
from genrec.errors import BundleError
from genrec.manifest import Kind, check_files, read_manifest, write_manifest
from genrec.tokenizers.base import ItemTokenizer
from genrec.tokenizers.families import load_tokenizer

CODES = Kind("folder of codes", 1, "genrec tokenize")


@dataclass(frozen=True, eq=False)
class PublishedCodes:
    """table and vectors [N, D] in the order of the catalogue; manifest: {} before it is written."""

    table: CodeTable
    catalogue: Catalogue
    vectors: np.ndarray
    tokenizer: ItemTokenizer
    embedder: ItemEmbedder
    manifest: dict[str, Any]

    def write(self, folder: Path, about: dict[str, Any]) -> None:
        """Complete a folder that may hold the report already. `about` goes into the manifest."""
        folder.mkdir(parents=True, exist_ok=True)
        self.table.save(folder / "codes.parquet")
        pq.write_table(self.catalogue.table, folder / "catalogue.parquet")
        save_file({"vectors": np.ascontiguousarray(self.vectors, np.float32)}, folder / "vectors.safetensors")
        self.tokenizer.save(folder / "item_tokenizer")
        self.embedder.save(folder / "embedder")
        write_manifest(folder, CODES, {**about, "codes": self.table.hash})


def read_codes(folder: Path | str) -> PublishedCodes:
    """Open a folder of codes; every file is checked. Raises `BundleError`."""
    folder = Path(folder)
    manifest = read_manifest(folder, CODES)
    check_files(folder, manifest)
    table = CodeTable.load(folder / "codes.parquet")
    catalogue = Catalogue.from_table(pq.read_table(folder / "catalogue.parquet"))
    tokenizer = load_tokenizer(folder / "item_tokenizer")
    if table.hash != manifest["codes"] or not np.array_equal(table.item_ids, catalogue.item_ids):
        raise BundleError(f"The files in {folder} are not of one generation. Copy the folder again.")
    if table.tokenizer != tokenizer.fingerprint:
        raise BundleError(
            f"The codes in {folder} were made by tokenizer {table.tokenizer[:12]}, beside them lies "
            f"{tokenizer.fingerprint[:12]}."
        )
    vectors = load_file(folder / "vectors.safetensors")["vectors"]
    return PublishedCodes(table, catalogue, vectors, tokenizer, ItemEmbedder.load(folder / "embedder"), manifest)
