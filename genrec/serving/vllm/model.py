"""The vLLM side: a pooling model whose pooler is the whole catalogue-constrained search.

vLLM schedules requests and batches them; one step answers all that it put together. The prompt is a single stand-in token: what
is asked travels in `PoolingParams.extra_kwargs` (wire.py), and the pooled output is [n, 2], catalogue rows and scores (or what
explanations are made of). The weights are the bundle's own model, so whatever genrec ranks with is served, T5 and one-pass
models included.

vLLM loads this by the entry point `vllm.general_plugins`; nothing in vLLM is changed.
"""

import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Iterable, Set

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedConfig
from vllm.config import VllmConfig
from vllm.model_executor.layers.pooler import Pooler
from vllm.model_executor.models.interfaces_base import attn_type

from genrec.decoding.changes import Change
from genrec.decoding.explain import weigh
from genrec.models.one_pass.model import MODEL_TYPE
from genrec.recommender import Recommender
from genrec.serving.vllm.wire import FAILED, STALE, UnknownVersionError, unpack

log = logging.getLogger(__name__)

TASK = "token_embed"
PARENT_SECONDS = 0.5  # how often a process looks whether its parent is there


def register() -> None:
    """The entry point, called in every process of vLLM's."""
    from vllm import ModelRegistry

    if multiprocessing.parent_process() is not None:
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), name="genrec-parent", daemon=True).start()
    ModelRegistry.register_model("GenrecForRecommendation", "genrec.serving.vllm.model:GenrecForRecommendation")
    AutoConfig.register(OnePassAsConfig.model_type, OnePassAsConfig, exist_ok=True)


class OnePassAsConfig(PreTrainedConfig):
    """The config of a one-pass model, as far as vLLM asks. It plans memory for a language model; ours takes none of it."""

    model_type = MODEL_TYPE
    hidden_size, num_hidden_layers, num_attention_heads, vocab_size, max_position_embeddings = 8, 1, 1, 8, 64


def _end_with_parent(parent: int) -> None:
    """End this process when the one that started it was killed: vLLM's engine would stay for ever, with all its memory."""
    while os.getppid() == parent:
        time.sleep(PARENT_SECONDS)
    os._exit(1)


@attn_type("attention_free")
class GenrecForRecommendation(nn.Module):
    """A bundle, as a model of vLLM's."""

    is_pooling_model = True
    is_attention_free = True

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        device = str(vllm_config.device_config.device)
        self.recommender = Recommender.load(vllm_config.model_config.model, device)
        self.model = self.recommender.ranker.model
        self.pooler = SearchPooler(self.recommender)

    def embed_input_ids(self, input_ids: Tensor) -> Tensor:
        return torch.zeros(len(input_ids), 1, device=input_ids.device)

    def forward(self, input_ids: Tensor | None, positions: Tensor, *_: object, **__: object) -> Tensor:
        """Nothing happens before the pooler."""
        return torch.zeros(len(positions), 1, device=positions.device)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """The bundle was loaded whole in `__init__`."""
        return {name for name, _ in self.named_parameters()}


class SearchPooler(Pooler):
    """Answers every request of a step in one search per version of the catalogue."""

    def __init__(self, recommender: Recommender) -> None:
        super().__init__()
        self.recommender = recommender

    def get_supported_tasks(self) -> Set[str]:
        return {TASK}

    def forward(self, hidden_states: Tensor, pooling_metadata) -> list[Tensor | None]:
        versions = {version.hash: version for version in self.recommender.catalogue.versions()}
        # One row for vLLM's own warming up and for requests to its own routes, which know nothing of genrec.
        outputs: list[Tensor | None] = [torch.zeros(1, 2, dtype=torch.float64)] * len(pooling_metadata.pooling_params)
        asked: dict[int, list] = {}
        for place, params in enumerate(pooling_metadata.pooling_params):
            if params.extra_kwargs is None:
                continue
            try:  # an exception that left this method would end vLLM's process, and with it everybody's request
                query, version, rows = unpack(params.extra_kwargs, versions)
                if rows is None:
                    asked.setdefault(id(version.snapshot), []).append((place, query, version.snapshot))
                else:
                    ranker, snapshot = self.recommender.ranker, version.snapshot
                    weights = [weigh(ranker, snapshot, query.history, int(row), query.user) for row in rows]
                    outputs[place] = torch.from_numpy(np.stack(weights)).double()
            except UnknownVersionError:
                outputs[place] = refusal(STALE)
            except Exception:
                log.exception("A request failed")
                outputs[place] = refusal(FAILED)
        for together in asked.values():
            for place, answer in self._search(together):
                outputs[place] = answer
        return outputs

    def _search(self, together: list) -> list[tuple[int, Tensor]]:
        """Answers by place. What cannot be answered is refused alone, not with its neighbours."""
        try:
            found = self.recommender.ranker.answer([query for _, query, _ in together], together[0][2])
        except Exception:
            if len(together) > 1:
                return [answer for one in together for answer in self._search([one])]
            log.exception("A search failed")
            return [(together[0][0], refusal(FAILED))]
        return [
            (place, torch.stack([torch.from_numpy(rows).double(), torch.from_numpy(scores).double()], dim=1))
            for (place, _, _), (rows, scores) in zip(together, found, strict=True)
        ]


def refusal(reason: int) -> Tensor:
    """Instead of an answer: one row that no catalogue has."""
    return torch.tensor([[float(reason), 0.0]], dtype=torch.float64)


class WorkerExtension:
    """Methods that the engine can call in vLLM's workers."""

    def genrec_pid(self) -> int:
        """The worker's process."""
        return os.getpid()

    def genrec_bundle(self) -> str:
        """The hash of the bundle that was loaded."""
        return self.model_runner.model.recommender.bundle.hash  # type: ignore[attr-defined]

    def genrec_change(self, number: int, data: bytes) -> None:
        """Make version `number` of the catalogue, unless it was made already (vLLM may have several servers before it)."""
        catalogue = self.model_runner.model.recommender.catalogue  # type: ignore[attr-defined]
        if catalogue.current.number < number:
            catalogue.replay(Change.decode(data))
