"""RQ-VAE: residual quantisation of a learned latent, trained together with an encoder and a decoder.

The encoder gives z [d]; level l takes the code nearest to what the levels before left over; the decoder rebuilds the item
vector from the sum of the code vectors. Codebooks start as k-means centroids of the first latents, and codes that nobody uses
are put back among the items: without both, most codes die. Sources: TIGER (arXiv 2305.05065), LC-Rec (arXiv 2311.09049); the
quantiser is that of the package vector-quantize-pytorch; the rotation trick is arXiv 2410.06424. With `pair_weight` codes also
learn what people do, in the same stage: the co-occurrence term of DAS (arXiv 2508.10584), and what FORGE (arXiv 2509.20904)
does with pairs.

Legend: `N` items, `D` vector width, `d` latent width, `L` levels, `K` codes per level.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from genrec.errors import SettingError, check_choice, check_integer
from genrec.networks import apply_perceptron, arrays_of, check_training, info_nce, perceptron, seeded, train_on
from genrec.tokenizers.base import ItemTokenizer
from genrec.tokenizers.residual import last_distances, residual_codes, sum_of_codes

PAIRS, TEMPERATURE = 512, 0.1  # of the contrastive loss
START = 20_000  # items whose latents the k-means of the first codebooks sees


@dataclass(frozen=True)
class RQVAEConfig:
    """levels: quantisation steps `L`. codebook_size: codes per level `K`. hidden: widths of the encoder's layers between the
    vector and the latent; the decoder mirrors them. latent: `d`. codebook: how codes learn, "ema" (moving averages of the
    latents they stand for) or "gradient". estimator: how gradients pass the rounding, "straight-through" or "rotation".
    commitment: weight of the loss that keeps latents near their codes. dead_below: a code used by fewer items of a batch, as a
    moving average, is put on an item of that batch; 0 never. pair_weight: of a contrastive loss that pulls quantised items
    together which follow each other in histories; 0 leaves histories out. steps, batch_size, learning_rate: of the training.
    """

    levels: int = 3
    codebook_size: int = 256
    hidden: tuple[int, ...] = (512, 256, 128)
    latent: int = 32
    codebook: Literal["ema", "gradient"] = "ema"
    estimator: Literal["straight-through", "rotation"] = "straight-through"
    commitment: float = 0.25
    dead_below: int = 1
    pair_weight: float = 0.0
    steps: int = 5_000
    batch_size: int = 1024
    learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        check_integer("levels", self.levels, 1, 8)
        check_integer("codebook_size", self.codebook_size, 2, 65_536)
        for width in (*self.hidden, self.latent):
            check_integer("hidden and latent", width, 1)
        check_choice("codebook", self.codebook, ["ema", "gradient"])
        check_choice("estimator", self.estimator, ["straight-through", "rotation"])
        check_integer("dead_below", self.dead_below, 0)
        check_training(self.steps, self.batch_size, self.learning_rate, self.seed)
        if self.codebook == "gradient" and not self.commitment > 0:
            raise SettingError("commitment must be above 0 with codebook 'gradient': nothing else teaches the codes.")
        if not (self.commitment >= 0 and self.pair_weight >= 0):
            raise SettingError(f"commitment and pair_weight must be 0 or more, got {self.commitment} and {self.pair_weight}.")


class RQVAE(ItemTokenizer):
    """State: `codebook_0` .. `codebook_{L-1}`, each [K, d] float32, and the layers of encoder and decoder."""

    family = "rq-vae"

    def __init__(self, config: RQVAEConfig | None = None) -> None:
        super().__init__()
        self.config = config or RQVAEConfig()

    @property
    def wants_pairs(self) -> bool:
        return self.config.pair_weight > 0

    @property
    def codebooks(self) -> list[np.ndarray]:
        """One [K, d] matrix per level."""
        return [self.state[f"codebook_{level}"] for level in range(self.config.levels)]

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(len(matrix) for matrix in self.codebooks)

    @property
    def width(self) -> int:
        return self.state["encoder_weight_0"].shape[1]

    def settings(self) -> dict[str, Any]:
        return asdict(self.config) | {"hidden": list(self.config.hidden)}

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Self:
        return cls(RQVAEConfig(**settings))

    def latent(self, vectors: np.ndarray) -> np.ndarray:
        """What is quantised: float64 [N, d]."""
        return apply_perceptron(self.state, "encoder", vectors)

    def _fit(self, vectors: np.ndarray, pairs: np.ndarray) -> dict[str, np.ndarray]:
        if self.config.codebook_size > len(vectors):
            raise SettingError(
                f"codebook_size must be at most the number of items, {len(vectors)}, got {self.config.codebook_size}. Lower it."
            )
        return seeded(self.config.seed, lambda: self._train(vectors, pairs))

    def _train(self, vectors: np.ndarray, pairs: np.ndarray) -> dict[str, np.ndarray]:
        from vector_quantize_pytorch import ResidualVQ

        config = self.config
        widths = (vectors.shape[1], *config.hidden, config.latent)
        encoder, decoder = perceptron(widths), perceptron(widths[::-1])
        quantiser = ResidualVQ(
            dim=config.latent,
            num_quantizers=config.levels,
            codebook_size=config.codebook_size,
            kmeans_init=True,
            decay=0.99,
            threshold_ema_dead_code=config.dead_below,
            ema_update=config.codebook == "ema",
            learnable_codebook=config.codebook == "gradient",
            rotation_trick=config.estimator == "rotation",
            commitment_weight=config.commitment,
        )
        # The latents of a fresh encoder are tiny beside the weights of a fresh decoder: a scale of one lets both learn.
        scale = float(np.sqrt((vectors.astype(np.float64) ** 2).mean())) or 1.0
        data, couples = torch.from_numpy(vectors), torch.from_numpy(pairs)
        sample = torch.from_numpy(vectors[:: max(1, len(vectors) // START)][:START]) / scale
        with torch.no_grad():
            quantiser(encoder(sample))  # the first call places the codes

        def loss(batch: Tensor) -> Tensor:
            batch = batch / scale
            quantised, _, commitment = quantiser(encoder(batch))
            # The papers weigh sums over numbers; these are means, over D and over d.
            total = mse_loss(decoder(quantised), batch) + commitment.sum() * config.latent / batch.shape[1]
            if not config.pair_weight:
                return total
            chosen = couples[torch.randint(len(couples), (min(PAIRS, len(couples)),))]
            a, b = (quantiser(encoder(data[rows].to(batch.device) / scale))[0] for rows in chosen.unbind(1))
            return total + config.pair_weight * contrast(a, b, chosen.to(batch.device))

        train_on(
            vectors, torch.nn.ModuleList([encoder, decoder, quantiser]), loss, steps=config.steps,
            batch_size=config.batch_size, learning_rate=config.learning_rate, desc="RQ-VAE",
        )  # fmt: skip
        state = arrays_of(encoder, "encoder") | arrays_of(decoder, "decoder")
        last = len(widths) - 2
        state["encoder_weight_0"] = state["encoder_weight_0"] / np.float32(scale)
        state[f"decoder_weight_{last}"] = state[f"decoder_weight_{last}"] * np.float32(scale)
        state[f"decoder_bias_{last}"] = state[f"decoder_bias_{last}"] * np.float32(scale)
        books = quantiser.codebooks.detach().cpu().numpy().astype(np.float32)
        return state | {f"codebook_{level}": book.copy() for level, book in enumerate(books)}

    def _encode(self, vectors: np.ndarray) -> np.ndarray:
        return residual_codes([book.astype(np.float64) for book in self.codebooks], self.latent(vectors))

    def last_distances(self, vectors: np.ndarray, codes: np.ndarray) -> np.ndarray:
        return last_distances(self.codebooks, self.latent(vectors), codes)

    def _decode(self, codes: np.ndarray) -> np.ndarray:
        return apply_perceptron(self.state, "decoder", sum_of_codes(self.codebooks, codes)).astype(np.float32)


def contrast(a: Tensor, b: Tensor, pairs: Tensor) -> Tensor:
    """InfoNCE in both directions between paired rows [P, d]; rows of an item that is in the pair too are no negatives."""
    same = (pairs[:, :1] == pairs[None, :, 1]) | (pairs[:, 1:] == pairs[None, :, 1]) | (pairs[:, :1] == pairs[None, :, 0])
    return info_nce(a, b, TEMPERATURE, same)
