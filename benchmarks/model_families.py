"""Which causal language models of transformers are decoded exactly, and which are refused: every family, small and random.

    python benchmarks/model_families.py                # all families of the installed version, some minutes on one core
    python benchmarks/model_families.py llama rwkv     # two of them

Each family's configuration is made small, with random weights. A history of six items, one of one and an empty one rank a
catalogue of 30 items by the constrained beam search; then every item is scored alone, by one plain forward pass. "exact": all
scores agree. "refused": genrec raises `SettingError`, and its message stands beside it. "wrong" or "crash" would be errors of
genrec's. "not tried": the family has no small configuration from these settings, which says nothing of it at its real size.
"""

import argparse
import inspect
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from genrec.data.interactions import Histories
from genrec.decoding.ranker import BeamRanker
from genrec.decoding.snapshot import Snapshot
from genrec.errors import SettingError
from genrec.evaluation.evaluate import markdown_table
from genrec.models.tokens import TokenLayout

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from worlds import ALL, MAX_HISTORY, brute_force

SIZES = (4, 5, 3)
LAYOUT = TokenLayout.from_scratch(SIZES)
MOST_WEIGHTS = 5_000_000
# Settings under the names that families have for them; each takes those that it knows.
SMALL = {
    **dict.fromkeys(["vocab_size"], LAYOUT.vocabulary_size + 3),
    **dict.fromkeys(["hidden_size", "n_embd", "d_model", "dim", "embed_dim", "word_embed_proj_dim", "embedding_size",
                     "attention_hidden_size", "moe_intermediate_size", "shared_intermediate_size"], 32),
    **dict.fromkeys(["intermediate_size", "ffn_dim", "n_inner", "d_ff", "hidden_dim"], 64),
    **dict.fromkeys(["num_hidden_layers", "n_layer", "n_layers", "num_layers"], 2),
    **dict.fromkeys(["num_attention_heads", "num_key_value_heads", "n_head", "n_heads", "num_heads", "num_head"], 4),
    **dict.fromkeys(["head_dim", "d_kv", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "q_lora_rank", "kv_lora_rank",
                     "rotary_dim"], 8),
    **dict.fromkeys(["max_position_embeddings", "n_positions", "max_seq_len"], 64),
    **dict.fromkeys(["num_experts", "num_local_experts", "n_routed_experts"], 2),
    **dict.fromkeys(["num_experts_per_tok", "n_shared_experts", "n_group", "topk_group"], 1),
    **dict.fromkeys(["state_size", "time_step_rank", "mamba_d_state", "mamba_n_heads"], 4),
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None, "is_decoder": True,
}  # fmt: skip
ALSO = {"gpt_neo": {"attention_types": [[["global", "local"], 1]]}}


def small(family: str) -> PreTrainedConfig:
    kind = CONFIG_MAPPING[family]
    known = {name for base in kind.__mro__ for name in inspect.get_annotations(base)}
    known |= set(inspect.signature(kind.__init__).parameters) | set(kind.attribute_map)
    given = {name: value for name, value in SMALL.items() if name in known and kind.attribute_map.get(name) not in SMALL}
    return kind(**given | ALSO.get(family, {}))


def made(config: PreTrainedConfig) -> PreTrainedModel:
    """With weights four times as large as at first, so that probabilities are far from uniform and wrong ones show."""
    with torch.device("meta"):
        weights = sum(weight.numel() for weight in AutoModelForCausalLM.from_config(config).parameters())
    if weights > MOST_WEIGHTS:
        raise ValueError(f"{weights:,} weights at its smallest")
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for weight in model.parameters():
        if weight.ndim > 1:
            weight.mul_(4)
    return model


def tried(family: str) -> tuple[str, str]:
    try:
        model = made(small(family))
    except Exception as error:
        return "not tried", said(error)
    codes = np.stack(np.unravel_index(np.random.default_rng(0).permutation(60)[:30], SIZES), axis=1)
    histories = [np.array([3, 4, 3, 9, 9, 1]), np.array([7]), np.zeros(0, np.int64)]
    try:
        ranker = BeamRanker(model, LAYOUT, Snapshot.of(codes, SIZES), ALL, MAX_HISTORY)
        found = ranker.rank(Histories.from_lists(histories), 30, exclude_seen=False)
        alone = [brute_force(ranker, history) for history in histories]
    except SettingError as error:
        return "refused", said(error)
    except Exception as error:
        return "crash", said(error)
    apart = max(float(np.abs(scores - exact[rows]).max()) for rows, scores, exact in zip(*found, alone, strict=True))
    spread = float(np.ptp(alone[0]))
    return "exact" if apart < 1e-4 * max(1.0, spread) else "wrong", f"scores {apart:.0e} apart, of a spread of {spread:.1f}"


def said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:150]}".replace("|", "/")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", choices=[[], *MODEL_FOR_CAUSAL_LM_MAPPING_NAMES], metavar="FAMILY",
                        help="model types of transformers, such as llama (all)")  # fmt: skip
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"  # a configuration says all that is needed
    transformers.logging.set_verbosity_error()
    rows = []
    for family in arguments.families or MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        verdict, why = tried(family)
        rows.append([family, verdict, why])
        print(f"{family}: {verdict}", file=sys.stderr, flush=True)
    rows.sort(key=lambda row: (row[1], row[0]))
    print(markdown_table(["family", "verdict", "why"], rows))
    print(f"\ntransformers {transformers.__version__}: {dict(Counter(row[1] for row in rows))}")


if __name__ == "__main__":
    main()
