"""genrec: items in, items back. Generative recommendation with a catalogue that is never left.

from genrec import Recommender
recommender = Recommender.load("runs/shop")
recommender.recommend([["B001", "B002"]], k=10)
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Catalogue", "Interactions", "Recommender", "__version__"]

if TYPE_CHECKING:
    from genrec.data.catalogue import Catalogue
    from genrec.data.interactions import Interactions
    from genrec.recommender import Recommender

_HOMES = {
    "Catalogue": "genrec.data.catalogue",
    "Interactions": "genrec.data.interactions",
    "Recommender": "genrec.recommender",
}


def __getattr__(name: str) -> Any:
    # Importing torch and transformers takes seconds; `genrec --help` should not.
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'genrec' has no attribute {name!r}")
