"""How much memory training a language model takes on a GPU, before one is rented.

In: the configuration of a model and the settings of its training; no weights are read, and none are made. Out: bytes, by what
they are for.

    found = training_memory(AutoConfig.from_pretrained("path/to/llm"), recipe.model, new_rows=1024, batch_tokens=8192)
    print(f"{found.total / 2**30:.1f} GiB")

Counted: all weights at the size that they are loaded in; 4 bytes a trained weight for its gradient and 8 for AdamW; what
autograd keeps of a step, by running the model's own forward pass on tensors that have shapes and no content; and the gradient
of the logits. Not counted: what CUDA itself takes, what the allocator cannot reuse, and validation, which needs less.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from genrec.errors import SettingError, check_integer
from genrec.models.adapters import with_lora
from genrec.models.config import DECODER, ModelConfig
from genrec.models.tokens import TokenLayout

SEQUENCE = 128  # tokens of a sequence: attention keeps nothing that grows with the square of it
# Bytes of a packed weight. 8 bits: a scale for each row is nothing; 4 bits: a float32 scale for every 64 weights.
PACKED = {"8bit": 1.0, "4bit": 0.5 + 4 / 64}


@dataclass(frozen=True)
class Memory:
    """Bytes. weights: of the model, trained ones included. gradients, optimiser: of the trained weights. activations: what
    autograd keeps of a step. logits: their gradient, where a step is largest."""

    weights: int
    gradients: int
    optimiser: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimiser + self.activations + self.logits


def training_memory(
    architecture: PreTrainedConfig,
    config: ModelConfig,
    new_rows: int,
    batch_tokens: int,
    bf16: bool = True,
    checkpointing: bool = False,
) -> Memory:
    """What a step of `batch_tokens` tokens takes. architecture: of the pretrained decoder. new_rows: tokens that its vocabulary
    grows by. checkpointing: keep the inputs of the layers alone, and compute the rest again, one layer at a time.

    Raises `SettingError` for an encoder-decoder.
    """
    check_integer("new_rows", new_rows, 1)
    check_integer("batch_tokens", batch_tokens, SEQUENCE)
    if config.architecture != DECODER or architecture.is_encoder_decoder:
        raise SettingError(
            f"The estimate is for decoders, got {architecture.model_type!r} as {config.architecture!r}. Leave "
            "model.architecture at 'decoder', and name a causal language model."
        )
    model = _without_content(architecture, config, new_rows)
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    packed = _packed_weights(model) if config.quantization else 0
    whole = sum(weight.numel() for weight in model.parameters()) - packed
    kept = _kept(model, batch_tokens // SEQUENCE, bf16)
    if checkpointing:
        layers = int(model.config.num_hidden_layers)
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable()
        kept = _kept(model, batch_tokens // SEQUENCE, bf16) + kept // layers
    if packed and bf16:
        kept -= 2 * packed  # a packed weight is unpacked for the moment; a float32 one leaves its bf16 copy behind
    logits = batch_tokens * (int(architecture.vocab_size) + new_rows)
    return Memory(
        weights=4 * whole + int(PACKED[config.quantization] * packed if config.quantization else 0),
        gradients=4 * trained,
        optimiser=8 * trained,
        activations=max(kept, 0),
        logits=logits * (6 if bf16 else 4),
    )


def _without_content(architecture: PreTrainedConfig, config: ModelConfig, new_rows: int) -> PreTrainedModel:
    """The model with its new rows and adapters as `load_grown` makes it, on PyTorch's device of shapes alone."""
    grown = type(architecture).from_dict(architecture.to_dict() | {"vocab_size": architecture.vocab_size + new_rows})
    layout = TokenLayout(architecture.vocab_size, (new_rows,), 0, 0)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(grown, dtype=torch.float32)
        if config.lora_rank or config.item_encoder:
            plain = replace(config, quantization=None)
            tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
            model = with_lora(model, layout, plain, tied)
    return model.train()


def _packed_weights(model: nn.Module) -> int:
    """Weights of linear layers that a base of few bits packs: all but adapters and output layer."""
    output = model.get_output_embeddings()  # type: ignore[operator]
    outside = {id(output), id(getattr(output, "base_layer", None)), id(getattr(output, "original_module", None))}
    return sum(
        module.weight.numel()
        for name, module in model.named_modules()
        if type(module) is nn.Linear and id(module) not in outside and "lora_" not in name and "lm_head" not in name
    )


def _kept(model: PreTrainedModel, sequences: int, bf16: bool) -> int:
    """Bytes that autograd keeps of one forward pass beside the weights themselves, each storage counted once."""
    storages: dict[int, tuple[int, object]] = {}

    def keep(saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        storages[storage._cdata] = (storage.nbytes(), storage)  # held, or its number would be given again
        return saved

    with FakeTensorMode(allow_non_fake_inputs=True):
        weights = {n: torch.empty(w.shape, dtype=w.dtype, requires_grad=w.requires_grad) for n, w in model.named_parameters()}
        buffers = {name: torch.empty(buffer.shape, dtype=buffer.dtype) for name, buffer in model.named_buffers()}
        own = {weight.untyped_storage()._cdata for weight in weights.values()}
        tokens = torch.zeros(sequences, SEQUENCE, dtype=torch.int64)
        inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": tokens, "use_cache": False}
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved),
            torch.autocast("cpu", torch.bfloat16, enabled=bf16),
        ):
            torch.func.functional_call(model, {**weights, **buffers}, (), inputs)
    return sum(size for number, (size, _) in storages.items() if number not in own)
