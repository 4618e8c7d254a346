"""The families of item tokenizers, by name.

In: a name, or a folder that one was saved in. Out: an item tokenizer. A new family is one file and one line here.
"""

import json
from pathlib import Path

from genrec.errors import BundleError
from genrec.tokenizers.base import ItemTokenizer
from genrec.tokenizers.das import DAS
from genrec.tokenizers.fsq import FSQ
from genrec.tokenizers.opq import OPQ
from genrec.tokenizers.rq_kmeans import RQKMeans
from genrec.tokenizers.rq_vae import RQVAE

FAMILIES: dict[str, type[ItemTokenizer]] = {kind.family: kind for kind in (RQKMeans, RQVAE, DAS, FSQ, OPQ)}


def load_tokenizer(folder: Path) -> ItemTokenizer:
    """The item tokenizer that `save` wrote into `folder`. Raises `BundleError`."""
    path = Path(folder) / "tokenizer.json"
    try:
        family = json.loads(path.read_text(encoding="utf-8"))["family"]
    except (OSError, ValueError, KeyError, TypeError):
        raise BundleError(f"{path} is missing or no item tokenizer's. Copy the bundle again.") from None
    if family not in FAMILIES:
        raise BundleError(f"{folder} holds a {family!r} tokenizer; this genrec knows {', '.join(FAMILIES)}. Update genrec.")
    return FAMILIES[family].load(folder)
