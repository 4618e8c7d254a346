"""Collaborative item vectors of a graph: users and items as nodes, every training event an edge, items begin with what they
say.

In: training histories and content vectors. Out: [N, d] float32, rows of length 1. Two GraphSAGE layers (a node's own part and
the mean of its neighbours) trained to rank what a user met above what they did not (BPR). An item without edges keeps its own
part, so it has a vector too. Source: the graph encoder of MMGRec (arXiv 2404.16555).

Legend: `U` users, `N` items, `D` content width, `d` width.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, leaky_relu, logsigmoid

from genrec.data.interactions import Histories
from genrec.networks import seeded, train_on

HIDDEN, NEGATIVES, BATCH, LEARNING_RATE = 128, 5, 4096, 3e-3
EPOCHS, LEAST_STEPS, MOST_STEPS = 15, 100, 3_000
DROPOUTS = (0.5, 0.2)


class _Layer(nn.Module):
    def __init__(self, inward: int, outward: int) -> None:
        super().__init__()
        self.own = nn.Linear(inward, outward)
        self.around = nn.Linear(inward, outward, bias=False)

    def forward(self, nodes: Tensor, mean: Tensor) -> Tensor:
        return self.own(nodes) + self.around(torch.sparse.mm(mean, nodes))


class _Graph(nn.Module):
    """Nodes: users, then items. mean: sparse [U + N, U + N], rows that average a node's neighbours."""

    def __init__(self, users: int, content: Tensor, mean: Tensor, width: int) -> None:
        super().__init__()
        self.users = nn.Embedding(users, HIDDEN)
        nn.init.normal_(self.users.weight, std=0.1)
        self.inward = nn.Linear(content.shape[1], HIDDEN, bias=False)
        self.first, self.second = _Layer(HIDDEN, HIDDEN), _Layer(HIDDEN, width)
        self.register_buffer("content", content, persistent=False)
        self.register_buffer("mean", mean, persistent=False)

    def forward(self) -> Tensor:
        """All nodes: [U + N, d]."""
        content, mean = self.get_buffer("content"), self.get_buffer("mean")
        nodes = torch.cat([self.users.weight, self.inward(content)])
        nodes = dropout(leaky_relu(self.first(nodes, mean)), DROPOUTS[0], self.training)
        return dropout(self.second(nodes, mean), DROPOUTS[1], self.training)


def graph_vectors(histories: Histories, content: np.ndarray, width: int, seed: int) -> np.ndarray:
    """See the module. content: [N, D]."""
    vectors = seeded(seed, lambda: _train(histories, content, width))
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norms > 1e-9, norms, 1)).astype(np.float32)


def _train(histories: Histories, content: np.ndarray, width: int) -> np.ndarray:
    users, items = len(histories), len(content)
    edges = np.unique(np.column_stack([np.repeat(np.arange(users), histories.lengths), histories.items]), axis=0).astype(
        np.int64
    )
    graph = _Graph(users, torch.from_numpy(content.astype(np.float32)), _mean(edges, users, items), width)

    def loss(batch: Tensor) -> Tensor:
        nodes = graph()
        of_user, of_item = nodes[batch[:, 0]], nodes[users + batch[:, 1]]
        others = nodes[users + torch.randint(items, (len(batch), NEGATIVES), device=batch.device)]
        better = (of_user * of_item).sum(dim=1, keepdim=True) - (of_user.unsqueeze(1) * others).sum(dim=2)
        return -logsigmoid(better).mean()

    if len(edges):
        steps = int(np.clip(EPOCHS * len(edges) / BATCH, LEAST_STEPS, MOST_STEPS))
        train_on(
            edges, graph, loss, steps=steps, batch_size=BATCH, learning_rate=LEARNING_RATE,
            weight_decay=1e-6, desc="Graph",
        )  # fmt: skip
    with torch.no_grad():
        return graph.eval()()[users:].numpy()


def _mean(edges: np.ndarray, users: int, items: int) -> Tensor:
    """Sparse [U + N, U + N]: each row averages over the neighbours of a node."""
    both = np.concatenate([edges + np.array([0, users]), edges[:, ::-1] + np.array([users, 0])])
    degree = np.bincount(both[:, 0], minlength=users + items)
    weights = torch.from_numpy((1.0 / degree[both[:, 0]]).astype(np.float32))
    return torch.sparse_coo_tensor(torch.from_numpy(both.T.copy()), weights, (users + items,) * 2).coalesce().to_sparse_csr()
