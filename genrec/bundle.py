"""Bundle: a folder that holds one recommender, whole or not at all.

In: what `genrec fit` made. Out: a folder that `transformers` and vLLM load as it is (config, safetensors, tokenizer) plus the
code table, the catalogue, the item tokenizer and embedder, settings, metrics and a model card. `manifest.json`, with a hash
of every file, is written last: no manifest, no bundle. `serving.json` and the card alone may be edited afterwards.
"""

import json
import typing
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq
from safetensors.numpy import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel

from genrec.codes import CodeTable
from genrec.data.catalogue import Catalogue
from genrec.embedding.fused import ItemEmbedder
from genrec.errors import BundleError, SettingError, check_choice, check_integer
from genrec.manifest import Kind, check_files, read_manifest, self_hash, write_json, write_manifest
from genrec.models import discrec  # noqa: F401  # so that transformers knows its class
from genrec.models.one_pass.model import ARCHITECTURE, OnePassModel
from genrec.models.packed import pack_linears
from genrec.models.pretrained import embedding_rows
from genrec.models.tokens import TokenLayout
from genrec.tokenizers.base import ItemTokenizer
from genrec.tokenizers.families import load_tokenizer

BUNDLE = Kind("bundle", 3, "genrec fit")
SERVING = "serving.json"
# Not beside the weights: vLLM reads every .safetensors file that it finds there as weights.
COUNTS = "items/counts.safetensors"  # training events per item
INDEX = "items/index.safetensors"  # the catalogue index, mapped into memory by the decoder
VECTORS = "items/vectors.safetensors"  # item vectors, where the model reads them
USER_INDEX = "items/user_index.safetensors"  # centroids, where the model reads a user index
ITEM_ENCODER = "items/item_encoder.safetensors"  # weights, where it reads items as soft tokens
USER_ADAPTER = "items/user_adapter.safetensors"  # weights, where it reads soft tokens
FUSION = "items/fusion.safetensors"  # what is added to the model's scores, where the recipe has a fusion
SCORER = "scorer"  # folder of the one-pass model that votes beside a language model
CARD = "README.md"
# Nothing reads the card: who publishes it adds a licence, and what else people should know.
EDITABLE = frozenset({SERVING, CARD})
# What `write_bundle` adds, files and folders; all else is the model's.
OWN = frozenset(
    {"codes.parquet", "catalogue.parquet", "items", "item_tokenizer", "embedder", "settings.json", SERVING, "metrics.json",
     CARD, SCORER}
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """Frozen with the weights. base, sizes, start, pad, users, index, soft, queries: the token layout. max_history: items the
    model reads. repeat_share: share of training events that repeat an item of the same user. tie_rule: order of items that
    share codes. split: the recipe's settings of the split, by name.
    """

    base: int
    sizes: tuple[int, ...]
    start: int
    pad: int
    max_history: int
    repeat_share: float
    tie_rule: str
    split: dict[str, Any]
    users: int = 0
    index: tuple[int, ...] = ()
    soft: int = 0
    queries: int = 0

    @property
    def layout(self) -> TokenLayout:
        more = (self.users, tuple(self.index), self.soft, self.queries)
        return TokenLayout(self.base, tuple(self.sizes), self.start, self.pad, *more)


@dataclass(frozen=True)
class ServingSettings:
    """What a user may change in `serving.json` without a new fit: beam_width, k, exclude_seen; and width, of a one-pass model:
    how many numbers of a vector are looked at, one of those that were trained (None: all)."""

    beam_width: int
    k: int
    exclude_seen: bool
    width: int | None = None

    def __post_init__(self) -> None:
        check_integer("beam_width", self.beam_width, 1, 512)
        check_integer("k", self.k, 1, self.beam_width)
        if not isinstance(self.exclude_seen, bool):
            raise SettingError(f"exclude_seen must be true or false, got {self.exclude_seen!r}.")
        if self.width is not None:
            check_integer("width", self.width, 1)


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle that was read and checked; the model's weights are loaded by `load_model`."""

    folder: Path
    manifest: dict[str, Any]
    settings: Settings
    serving: ServingSettings
    catalogue: Catalogue
    codes: CodeTable
    train_counts: np.ndarray  # int64 [N]: training events per catalogue row

    def load_model(self, device: str | None = None) -> PreTrainedModel:
        """The language model, ready to decode, on `device` (default: a GPU where there is one)."""
        import torch

        if self.one_pass:
            raise BundleError(f"{self.folder} holds a one-pass model, which is no language model. Use load_one_pass.")
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        seq2seq = AutoConfig.from_pretrained(self.folder, local_files_only=True).is_encoder_decoder
        kind = AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM
        model: PreTrainedModel = kind.from_pretrained(self.folder, dtype="auto", local_files_only=True)
        if embedding_rows(model) < self.settings.layout.vocabulary_size:
            raise BundleError(f"The model in {self.folder} has fewer token rows than its code table needs. Fit it again.")
        typing.cast(torch.nn.Module, model).to(device)
        if torch.device(device).type == "cpu":
            pack_linears(model)
        self._check_unchanged()
        return model.eval()

    def load_one_pass(self, device: str | None = None) -> OnePassModel:
        """The one-pass model, ready to rank, on `device` (default: a GPU where there is one)."""
        model = OnePassModel.load(self.folder, device)
        self._check_unchanged()
        return model

    def load_encoders(self) -> tuple[ItemEmbedder, ItemTokenizer]:
        """The item embedder and the item tokenizer, for items that arrive later."""
        encoders = ItemEmbedder.load(self.folder / "embedder"), load_tokenizer(self.folder / "item_tokenizer")
        self._check_unchanged()
        if encoders[1].fingerprint != self.codes.tokenizer:
            raise BundleError(
                f"The codes in {self.folder} were made by item tokenizer {self.codes.tokenizer[:12]}, beside them lies "
                f"{encoders[1].fingerprint[:12]}. Copy the bundle again."
            )
        return encoders

    def _check_unchanged(self) -> None:
        """What is read late must be of the same bundle as what was read first."""
        now = self_hash(read_manifest(self.folder, BUNDLE))[:16]
        if now != self.hash:
            raise BundleError(f"{self.folder} now holds bundle {now}, it was opened as {self.hash}. Load it again.")

    @cached_property
    def hash(self) -> str:
        """Names the bundle by all that was frozen in it: 16 hex digits of its manifest's hash."""
        return self_hash(self.manifest)[:16]

    @property
    def architecture(self) -> str:
        """The model's class in transformers."""
        return json.loads((self.folder / "config.json").read_text(encoding="utf-8"))["architectures"][0]

    @property
    def one_pass(self) -> bool:
        """Whether the model scores all items at once, instead of writing codes."""
        return self.architecture == ARCHITECTURE

    @property
    def fused(self) -> bool:
        """Whether something is added to the model's scores."""
        return (self.folder / FUSION).exists()

    @property
    def model_files(self) -> list[str]:
        """Names of the files in the folder that are the model's own: weights, configuration, text tokenizer."""
        return [name for name in self.manifest["files"] if name.split("/")[0] not in OWN]

    @cached_property
    def vectors(self) -> np.ndarray | None:
        """Item vectors [N, D] float32 where the model reads them."""
        path = self.folder / VECTORS
        return load_file(path)["vectors"] if path.exists() else None

    @property
    def metrics(self) -> dict[str, Any]:
        """What `genrec fit` measured."""
        return json.loads((self.folder / "metrics.json").read_text(encoding="utf-8"))

    @property
    def tie_rank(self) -> np.ndarray:
        """Order among items with the same codes, smaller first: int64 [N]."""
        return tie_rank(self.settings.tie_rule, self.catalogue.item_ids, self.train_counts)


def tie_rank(rule: str, item_ids: np.ndarray, train_counts: np.ndarray) -> np.ndarray:
    """ "popularity": more training events first, then by id; "item_id": by id. int64 [N]."""
    by_id = np.argsort(np.argsort(item_ids.astype(str), kind="stable"), kind="stable")
    order = np.lexsort((by_id, -train_counts)) if rule == "popularity" else np.argsort(by_id)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank


def write_bundle(
    folder: Path,
    *,
    settings: Settings,
    serving: ServingSettings,
    catalogue: Catalogue,
    codes: CodeTable,
    train_counts: np.ndarray,
    tokenizer: ItemTokenizer,
    embedder: ItemEmbedder,
    metrics: dict[str, Any],
    about: dict[str, Any],
    card: str,
    vectors: np.ndarray | None = None,
) -> None:
    """Complete a folder that holds the model and its text tokenizer already. `about` goes into the manifest. vectors: of the
    items [N, D], where the model reads them."""
    codes.save(folder / "codes.parquet")
    pq.write_table(catalogue.table, folder / "catalogue.parquet")
    (folder / COUNTS).parent.mkdir(exist_ok=True)
    save_file({"train_counts": train_counts.astype(np.int64)}, folder / COUNTS)
    if vectors is not None:
        save_file({"vectors": np.ascontiguousarray(vectors, np.float32)}, folder / VECTORS)
    tokenizer.save(folder / "item_tokenizer")
    embedder.save(folder / "embedder")
    write_json(folder / "settings.json", asdict(settings))
    write_json(folder / SERVING, asdict(serving))
    write_json(folder / "metrics.json", metrics)
    (folder / CARD).write_text(card, encoding="utf-8")
    write_manifest(folder, BUNDLE, {**about, "codes": codes.hash})


def read_bundle(folder: Path | str, verify: Literal["full", "size"] = "full") -> Bundle:
    """Open a bundle. "full" hashes every file, "size" only compares sizes (for huge weights on slow disks).

    Raises `BundleError` naming the file that is missing, truncated, edited or too much.
    """
    check_choice("verify", verify, ["full", "size"])
    folder = Path(folder)
    manifest = read_manifest(folder, BUNDLE)
    check_files(folder, manifest, verify, EDITABLE)
    settings = Settings(**json.loads((folder / "settings.json").read_text(encoding="utf-8")))
    codes = CodeTable.load(folder / "codes.parquet")
    catalogue = Catalogue.from_table(pq.read_table(folder / "catalogue.parquet"))
    if codes.hash != manifest["codes"]:
        raise BundleError(
            f"codes.parquet in {folder} is table {codes.hash[:12]}, the bundle was made with {manifest['codes'][:12]}."
        )
    if not np.array_equal(codes.item_ids, catalogue.item_ids):
        raise BundleError(f"catalogue.parquet and codes.parquet in {folder} do not list the same items. Copy the bundle again.")
    counts = load_file(folder / COUNTS)["train_counts"]
    return Bundle(folder, manifest, settings, _read_serving(folder), catalogue, codes, counts)


def _read_serving(folder: Path) -> ServingSettings:
    path = folder / SERVING
    try:
        return ServingSettings(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise BundleError(f"{path} cannot be used: {error} It takes beam_width, k, exclude_seen and width.") from None
