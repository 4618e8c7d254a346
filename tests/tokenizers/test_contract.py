"""Every family of item tokenizers against the contract. A new family is one line in FAMILIES."""

from collections.abc import Callable

import pytest
from contract import TokenizerContract

from genrec.tokenizers.base import ItemTokenizer
from genrec.tokenizers.rq_kmeans import RQKMeans, RQKMeansConfig

FAMILIES: dict[str, Callable[[], ItemTokenizer]] = {
    "rq-kmeans": lambda: RQKMeans(RQKMeansConfig(levels=3, codebook_size=16)),
}


class TestContract(TokenizerContract):
    @pytest.fixture(params=FAMILIES)
    def make(self, request: pytest.FixtureRequest) -> Callable[[], ItemTokenizer]:
        return FAMILIES[request.param]
