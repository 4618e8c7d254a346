"""Every family of item tokenizers against the contract. A new family is one line in FAMILIES."""

from collections.abc import Callable

import pytest
from contract import TokenizerContract

from genrec.tokenizers.base import ItemTokenizer
from genrec.tokenizers.das import DAS, DASConfig
from genrec.tokenizers.fsq import FSQ, FSQConfig
from genrec.tokenizers.opq import OPQ, OPQConfig
from genrec.tokenizers.rq_kmeans import RQKMeans, RQKMeansConfig
from genrec.tokenizers.rq_vae import RQVAE, RQVAEConfig

FAMILIES: dict[str, Callable[[], ItemTokenizer]] = {
    "rq-kmeans": lambda: RQKMeans(RQKMeansConfig(levels=3, codebook_size=24)),
    "rq-kmeans balanced": lambda: RQKMeans(RQKMeansConfig(levels=3, codebook_size=16, balanced=True)),
    "rq-vae": lambda: RQVAE(RQVAEConfig(levels=3, codebook_size=16, hidden=(32,), latent=8, steps=400)),
    "rq-vae rotation gradient": lambda: RQVAE(
        RQVAEConfig(3, 16, (32,), 8, codebook="gradient", estimator="rotation", commitment=0.05, steps=400)
    ),
    "das": lambda: DAS(DASConfig(3, 16, (32,), 8, steps=400, learning_rate=3e-3)),
    "fsq": lambda: FSQ(FSQConfig(slices=4, grid=(4, 4, 3), hidden=64, steps=500)),
    "opq": lambda: OPQ(OPQConfig(parts=4, bits=4)),
    "opq reduced": lambda: OPQ(OPQConfig(parts=5, bits=4, width=10)),
}


class TestContract(TokenizerContract):
    @pytest.fixture(params=FAMILIES)
    def make(self, request: pytest.FixtureRequest) -> Callable[[], ItemTokenizer]:
        return FAMILIES[request.param]
