"""RQ-VAE: residual quantisation of a learned latent, trained together with an encoder and a decoder (autoencoder.py).

The encoder gives z [d]; level l takes the code nearest to what the levels before left over; the decoder rebuilds the item
vector from the sum of the code vectors. With `pair_weight` codes also learn what people do, in the same stage, as FORGE (arXiv
2509.20904) does with pairs.

Legend: `N` items, `D` vector width, `d` latent width, `L` levels, `K` codes per level.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from genrec.data.interactions import Histories
from genrec.errors import DataError, SettingError
from genrec.networks import train_on
from genrec.tokenizers.autoencoder import Autoencoder, AutoencoderConfig, AutoencoderTokenizer, contrast

PAIRS = 512  # of a step


@dataclass(frozen=True)
class RQVAEConfig(AutoencoderConfig):
    """pair_weight: of a contrastive loss that pulls quantised items together which follow each other in histories; 0 leaves
    histories out.
    """

    pair_weight: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.pair_weight >= 0:
            raise SettingError(f"pair_weight must be 0 or more, got {self.pair_weight}.")


class RQVAE(AutoencoderTokenizer):
    """See the module; state and coding are those of `AutoencoderTokenizer`."""

    family = "rq-vae"
    config: RQVAEConfig

    def __init__(self, config: RQVAEConfig | None = None) -> None:
        super().__init__()
        self.config = config or RQVAEConfig()

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Self:
        return cls(RQVAEConfig(**settings))

    @property
    def wants_histories(self) -> bool:
        return self.config.pair_weight > 0

    def _train(self, vectors: np.ndarray, histories: Histories | None) -> dict[str, np.ndarray]:
        config = self.config
        network = Autoencoder(config, vectors)
        data = torch.from_numpy(vectors)
        pairs = torch.from_numpy(_pairs(histories)) if histories is not None else None

        def loss(batch: Tensor) -> Tensor:
            if pairs is None:
                return network.loss(batch)
            total = network.loss(batch)
            chosen = pairs[torch.randint(len(pairs), (min(PAIRS, len(pairs)),))]
            a, b = (network.quantised(data[rows].to(batch.device)) for rows in chosen.unbind(1))
            return total + config.pair_weight * contrast(a, b, chosen.to(batch.device))

        train_on(
            vectors, network, loss, steps=config.steps, batch_size=config.batch_size,
            learning_rate=config.learning_rate, desc="RQ-VAE",
        )  # fmt: skip
        return network.arrays()


def _pairs(histories: Histories) -> np.ndarray:
    """Different items that follow each other, each pair once: int64 [P, 2]."""
    pairs = histories.following_pairs()
    pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)
    if not len(pairs):
        raise DataError("There is no pair of different items to learn from.")
    return pairs
