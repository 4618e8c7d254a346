"""Adapters: LoRA or DoRA on the linear layers of a pretrained model, its new rows trained beside them, and a plain model again.

In: a model that `pretrained.grow` gave its rows, in full precision or with a base of 8 or 4 bits. Out: the model under peft, to
be trained, and later the plain model to be saved, which loads without peft and bitsandbytes and is served by every engine.

Sources: LoRA (arXiv 2106.09685), DoRA (arXiv 2402.09353), QLoRA (arXiv 2305.14314), 8-bit matrices (arXiv 2208.07339).
"""

import typing
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from genrec.errors import BundleError, MissingDependencyError
from genrec.models.config import ENCODER_DECODER, ModelConfig
from genrec.models.discrec import DiscRecForConditionalGeneration
from genrec.models.item_encoder import NAME as ITEM_ENCODER
from genrec.models.tokens import TokenLayout
from genrec.models.user_adapter import NAME as USER_ADAPTER

# Types of configurations, and names of classes, that transformers and with it vLLM load as language models.
TYPES = {*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES}
CLASSES = {*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values(), *MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.values()}


def with_lora(model: PreTrainedModel, layout: TokenLayout, config: ModelConfig, tied: bool) -> PreTrainedModel:
    """`model` under peft: LoRA on the linear layers (none of rank 0), the new token rows trained in full, and so a user adapter
    or an item encoder in it; everything else frozen.

    The rows are trained as float32 whatever the base is. tied: as `pretrained.grow` returned it.
    """
    from peft import LoraConfig, get_peft_model
    from peft.utils.constants import DUMMY_TARGET_MODULES

    rows = list(range(layout.base, layout.vocabulary_size))
    modules = {name.rsplit(".", 1)[-1]: module for name, module in model.named_modules()}
    embedding = next(n for n, m in modules.items() if m is model.get_input_embeddings())
    head = next(n for n, m in modules.items() if m is model.get_output_embeddings())
    trainable = {embedding: rows} if tied else {embedding: rows, head: rows}
    adapters = LoraConfig(
        r=max(1, config.lora_rank),
        lora_alpha=2 * max(1, config.lora_rank),
        lora_dropout=config.dropout,
        use_dora=config.dora,
        target_modules="all-linear" if config.lora_rank else DUMMY_TARGET_MODULES,  # peft's word for none
        trainable_token_indices=trainable,
        modules_to_save=[name for name in (USER_ADAPTER, ITEM_ENCODER) if hasattr(model, name)] or None,  # trained in full
        task_type="SEQ_2_SEQ_LM" if config.architecture == ENCODER_DECODER else "CAUSAL_LM",
    )
    return typing.cast(PreTrainedModel, get_peft_model(model, adapters))  # it forwards everything a model has


def quantization_of(config: ModelConfig) -> BitsAndBytesConfig | None:
    """How transformers is told to read the base, None for float32. Only linear layers lose bits: embeddings, the output layer
    and norms keep float32."""
    if config.quantization is None:
        return None
    if config.quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    compute = torch.bfloat16 if bf16 else torch.float32
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute)


def keep_trainable(model: nn.Module) -> None:
    """Turn off what bitsandbytes does to 4-bit layers on CPUs with AVX-512: at their first evaluation their weights are put
    into an order for inference alone, and training goes on after each validation."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010  # what mypy knows of modules is less


def require_adapters(config: ModelConfig) -> None:
    """Raise `MissingDependencyError` where a package is missing: LoRA asked for must never become a full fine-tune, nor a base
    of 4 bits one of 32."""
    if config.item_encoder and not config.lora_rank and find_spec("peft") is None:
        raise MissingDependencyError(
            "model.item_encoder trains new rows of a frozen model, which needs the package peft, which is not installed. "
            "Install it with `pip install peft`."
        )
    if config.lora_rank:
        try:
            import peft  # noqa: F401
        except ImportError:
            raise MissingDependencyError(
                "model.lora_rank is above 0, and LoRA needs the package peft, which is not installed. Install it with "
                "`pip install peft`, or set model.lora_rank to 0 to train all weights (slower, more memory)."
            ) from None
    if config.quantization and find_spec("bitsandbytes") is None:
        raise MissingDependencyError(
            f"model.quantization is {config.quantization!r}, which needs the package bitsandbytes, which is not installed. "
            "Install it with `pip install 'genrec[quantization]'`, or leave model.quantization out (more memory)."
        )


def merged(model: nn.Module) -> PreTrainedModel:
    """The plain model to save: adapters and new rows folded into the weights; a model without adapters as it is.

    A base of fewer bits becomes float32 first, at the very values that it was trained beside. Folding into 8 or 4 bits, as peft
    would, rounds the adapters away; the base's original weights would be another model than the one that was validated.
    """
    if not hasattr(model, "merge_and_unload"):
        return typing.cast(PreTrainedModel, model)
    if not getattr(model.get_base_model(), "is_quantized", False):  # type: ignore[operator]
        return model.merge_and_unload()  # type: ignore[operator]
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    config = model.peft_config["default"]  # type: ignore[index]
    trained = get_peft_model_state_dict(model, save_embedding_layers=False)
    plain = model.unload().dequantize(torch.float32)  # type: ignore[operator]
    again = get_peft_model(plain, typing.cast(PeftConfig, config))
    set_peft_model_state_dict(again, trained)
    return again.merge_and_unload()  # type: ignore[operator,return-value]


def save_plain(model: PreTrainedModel, folder: Path) -> None:
    """Write the model as transformers, vLLM and genrec load it. Raises `BundleError` for one that they could not serve."""
    check_plain(model)
    model.save_pretrained(folder)


def check_plain(model: nn.Module) -> None:
    """Raise `BundleError` unless this is a whole model of a class that transformers loads by itself."""
    adapters = [name for name, _ in model.named_parameters() if "lora_" in name or "trainable_tokens" in name]
    if adapters or hasattr(model, "peft_config"):
        raise BundleError(
            f"The model still has adapters{f' ({adapters[0]})' if adapters else ''}, and a bundle holds whole weights: vLLM "
            "takes no adapters that train token rows. Fold them in with genrec.models.adapters.merged before it is saved."
        )
    packed = [name for name, weight in model.named_parameters() if not weight.is_floating_point()]
    if packed or getattr(model, "is_quantized", False):
        raise BundleError(
            "The model's weights are packed into fewer bits, which rounds scores and which not every engine reads. Save it in "
            "full precision: genrec.models.adapters.merged unpacks the base of adapters; train other models unpacked."
        )
    if type(model).__name__ not in CLASSES and not isinstance(model, DiscRecForConditionalGeneration):
        raise BundleError(
            f"{type(model).__name__} is no language model of transformers, so neither AutoModelForCausalLM nor vLLM could load "
            "it. Save one that they know, such as Qwen3ForCausalLM; what is built around it stays out of the bundle."
        )
