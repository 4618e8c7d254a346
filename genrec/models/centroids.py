"""Where the rows of codes begin in a model from scratch: at what their items have in common.

In: the item vectors and the codes. Out: embedding rows. From random rows a model must learn by histories alone that
two codes stand for alike items, which the vectors, of texts and of what is taken together, say before the first step.

Legend: `N` items, `L` levels, `D` vector width, `H` hidden width.
"""

import typing

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from genrec.models.tokens import TokenLayout

SPREAD = 2.5  # how far from 0 a row begins, in standard deviations of the model's random rows
NOISE = 0.1  # part of that which is random, so that codes of equal items can be told apart


def begin_at_centroids(model: PreTrainedModel, layout: TokenLayout, codes: np.ndarray, vectors: np.ndarray) -> None:
    """Set the row of each code to the mean vector of its items, along the directions in which items differ most. Seed torch
    first. codes: int [N, L]; vectors: [N, D]. A code that no item has, or only items whose vector is zero, keeps its random
    row.

    Vectors are centred and turned onto their first H principal axes (where H is larger than D, random numbers stand behind
    them), and the rows of a level are brought to `SPREAD`.
    """
    weight = typing.cast(Tensor, model.get_input_embeddings().weight)
    there = np.flatnonzero(np.abs(vectors).sum(axis=1) > 0)
    if not len(there):
        return
    centred = vectors[there].astype(np.float64)
    centred -= centred.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)  # the last ones are those of the largest variance
    turned = centred @ axes[:, ::-1][:, : weight.shape[1]]
    usual = float(weight.detach()[list(layout.code_tokens)].std())
    with torch.no_grad():
        for tokens in layout.to_tokens(codes[there]).T:
            used, place, counts = np.unique(tokens, return_inverse=True, return_counts=True)
            rows = np.zeros((len(used), turned.shape[1]))
            np.add.at(rows, place, turned)
            rows /= counts[:, None]
            rows *= SPREAD * usual * (weight.shape[1] / rows.shape[1]) ** 0.5 / max(float(rows.std()), 1e-12)
            begun = torch.randn(len(used), weight.shape[1]) * (NOISE * SPREAD * usual)
            begun[:, : rows.shape[1]] += torch.from_numpy(rows.astype(np.float32))
            weight[torch.from_numpy(used)] = begun.to(weight)
