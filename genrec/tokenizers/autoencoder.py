"""What RQ-VAE and DAS share: an encoder, residual quantisation of what it gives, and a decoder; and coding with what they
learned.

Codebooks start as k-means centroids of the first latents, and codes that nobody uses are put back among the items: without
both, most codes die. Sources: TIGER (arXiv 2305.05065), LC-Rec (arXiv 2311.09049); the quantiser is that of the package
vector-quantize-pytorch; the rotation trick is arXiv 2410.06424.

Legend: `N` items, `B` rows of a batch, `D` vector width, `d` latent width, `L` levels, `K` codes per level.
"""

from abc import abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from genrec.data.interactions import Histories
from genrec.errors import SettingError, check_choice, check_integer
from genrec.networks import apply_perceptron, arrays_of, check_training, info_nce, perceptron, seeded
from genrec.tokenizers.base import ItemTokenizer
from genrec.tokenizers.residual import last_distances, residual_codes, sum_of_codes

TEMPERATURE = 0.1  # of contrastive losses
START = 20_000  # vectors whose latents the k-means of the first codebooks sees


@dataclass(frozen=True)
class AutoencoderConfig:
    """levels: quantisation steps `L`. codebook_size: codes per level `K`. hidden: widths of the encoder's layers between the
    vector and the latent; the decoder mirrors them. latent: `d`. codebook: how codes learn, "ema" (moving averages of the
    latents they stand for) or "gradient". estimator: how gradients pass the rounding, "straight-through" or "rotation".
    commitment: weight of the loss that keeps latents near their codes. dead_below: a code used by fewer items of a batch, as a
    moving average, is put on an item of that batch; 0 never. steps, batch_size, learning_rate: of the training.
    """

    levels: int = 3
    codebook_size: int = 256
    hidden: tuple[int, ...] = (512, 256, 128)
    latent: int = 32
    codebook: Literal["ema", "gradient"] = "ema"
    estimator: Literal["straight-through", "rotation"] = "straight-through"
    commitment: float = 0.25
    dead_below: int = 1
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
        if not self.commitment >= 0:
            raise SettingError(f"commitment must be 0 or more, got {self.commitment}.")


class Autoencoder(nn.Module):
    """vectors [n, D]: what it will be trained on; the codes are placed among them. whose: for errors. Seed torch first."""

    def __init__(self, config: AutoencoderConfig, vectors: np.ndarray, whose: str = "items") -> None:
        from vector_quantize_pytorch import ResidualVQ

        super().__init__()
        if config.codebook_size > len(vectors):
            raise SettingError(
                f"codebook_size must be at most the number of {whose}, {len(vectors)}, got {config.codebook_size}. Lower it."
            )
        self.config = config
        widths = (vectors.shape[1], *config.hidden, config.latent)
        self.encoder, self.decoder = perceptron(widths), perceptron(widths[::-1])
        self.quantiser = ResidualVQ(
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
        self.scale = float(np.sqrt((vectors.astype(np.float64) ** 2).mean())) or 1.0
        sample = torch.from_numpy(vectors[:: max(1, len(vectors) // START)][:START])
        with torch.no_grad():
            self.quantised(sample)  # the first call places the codes

    def quantised(self, batch: Tensor) -> Tensor:
        """What the codes of vectors [B, D] stand for: [B, d], with gradients that pass the rounding (see `estimator`)."""
        return self.quantiser(self.encoder(batch / self.scale))[0]

    def loss(self, batch: Tensor) -> Tensor:
        """Of rebuilding vectors [B, D] from their codes, and of keeping latents and codes together."""
        batch = batch / self.scale
        quantised, _, commitment = self.quantiser(self.encoder(batch))
        # The papers weigh sums over numbers; these are means, over D and over d.
        return mse_loss(self.decoder(quantised), batch) + commitment.sum() * self.config.latent / batch.shape[1]

    def arrays(self, prefix: str = "") -> dict[str, np.ndarray]:
        """Everything learned, for vectors as they are: `{prefix}encoder_weight_0`, ..., `{prefix}codebook_0` [K, d], ..."""
        state = arrays_of(self.encoder, "encoder") | arrays_of(self.decoder, "decoder")
        last, scale = len(self.config.hidden), np.float32(self.scale)
        state["encoder_weight_0"] = state["encoder_weight_0"] / scale
        for name in (f"decoder_weight_{last}", f"decoder_bias_{last}"):
            state[name] = state[name] * scale
        for level, book in enumerate(self.quantiser.codebooks.detach().cpu().numpy().astype(np.float32)):
            state[f"codebook_{level}"] = book.copy()
        return {prefix + name: array for name, array in state.items()}


class AutoencoderTokenizer(ItemTokenizer):
    """State: `codebook_0` .. `codebook_{L-1}`, each [K, d] float32, and the layers of encoder and decoder."""

    config: AutoencoderConfig

    @abstractmethod
    def _train(self, vectors: np.ndarray, histories: Histories | None) -> dict[str, np.ndarray]:
        """The fitted arrays; PyTorch's random numbers are seeded."""

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

    def latent(self, vectors: np.ndarray) -> np.ndarray:
        """What is quantised: float64 [N, d]."""
        return apply_perceptron(self.state, "encoder", vectors)

    def _fit(self, vectors: np.ndarray, histories: Histories | None) -> dict[str, np.ndarray]:
        return seeded(self.config.seed, lambda: self._train(vectors, histories))

    def _encode(self, vectors: np.ndarray) -> np.ndarray:
        return residual_codes([book.astype(np.float64) for book in self.codebooks], self.latent(vectors))

    def last_distances(self, vectors: np.ndarray, codes: np.ndarray) -> np.ndarray:
        return last_distances(self.codebooks, self.latent(vectors), codes)

    def _decode(self, codes: np.ndarray) -> np.ndarray:
        return apply_perceptron(self.state, "decoder", sum_of_codes(self.codebooks, codes)).astype(np.float32)


def contrast(a: Tensor, b: Tensor, pairs: Tensor) -> Tensor:
    """InfoNCE in both directions between paired rows [B, d]; rows of one that is in the pair too are no negatives. pairs: who
    the rows are of, [B, 2]."""
    same = (pairs[:, :1] == pairs[None, :, 1]) | (pairs[:, 1:] == pairs[None, :, 1]) | (pairs[:, :1] == pairs[None, :, 0])
    return info_nce(a, b, TEMPERATURE, same)
