"""Which models the search decodes exactly: what their configuration says, and a trial of the search's own steps.

In: a Hugging Face model and its layout. Out: nothing, or a `SettingError` that says what is wrong with the model.

The steps (steps.py) put the beams of a user side by side in one sequence. A model that counts places from the end, keeps a
state instead of its past or has a mask of its own answers that too, and wrongly. No list of families stays complete, so each
model is asked: what it says of eight beams side by side must be what it says of each alone. GPT-Neo, which goes wrong with
more, is refused by name.

Legend: `T` tokens of the longest history, `W` beams of the trial, `D` of them compared, `H` hidden size.
"""

import math

import torch
from torch import Tensor
from transformers import PreTrainedModel

from genrec.decoding.steps import start
from genrec.errors import SettingError
from genrec.models.discrec import DiscRecConfig
from genrec.models.pretrained import RELATIVE, check_layers
from genrec.models.tokens import TokenLayout

BEAMS, COMPARED = 8, (3, 5, 7)  # not the first, which stands right behind the history, where all is well
# Of the length of a hidden vector. Right models stay below 1e-6 in float32. The others are estimates: no GPU has tried them,
# and in bf16 a small error in places (MPT with two levels) passes.
TOLERANCE, HALF_TOLERANCE, PACKED_TOLERANCE = 1e-2, 4e-2, 1e-1  # float32; bf16 and fp16; 8 and 4 bits


def check_model(model: PreTrainedModel, most_tokens: int) -> None:
    """Raise `SettingError` for a model whose configuration says that it would not decode exactly.

    most_tokens: longest history and suffix together. The search needs attention layers that take a mask of their own and
    remember every token.
    """
    config = model.config.get_text_config(decoder=True)
    name = _name(model)
    if model.config.is_encoder_decoder and model.config.model_type not in (*RELATIVE, DiscRecConfig.model_type):
        raise SettingError(
            f"Of encoder-decoders only those with relative positions are decoded exactly ({', '.join(RELATIVE)}); {name} is of "
            f"type {model.config.model_type!r}. Use a T5."
        )
    check_layers(config, name)
    if config.model_type == "gpt_neo":
        raise SettingError(
            f"{name} would not decode exactly: it counts its windows and places by what lies in the cache, and all beams "
            "lie there side by side. Use a model such as Qwen3, Llama, GPT-2 or T5."
        )
    window = getattr(config, "sliding_window", None)
    # Families without layer types, such as Mistral, have the window in all layers.
    slides = "sliding_attention" in (getattr(config, "layer_types", None) or ["sliding_attention"])
    if slides and window is not None and most_tokens > window:
        raise SettingError(
            f"{name} attends to the last {window} tokens in some layers; these histories need {most_tokens}. Lower "
            "training.max_history, or use a model with full attention."
        )
    attention = str(config._attn_implementation)
    if attention not in ("eager", "sdpa"):
        raise SettingError(
            f"The beams of a user share one sequence through an attention mask of their own, which only 'sdpa' and 'eager' "
            f"attention take; {name} was loaded with {attention!r}. Load it with attn_implementation='sdpa'."
        )


@torch.no_grad()
def try_steps(model: PreTrainedModel, layout: TokenLayout, max_history: int) -> None:
    """Raise `SettingError` unless the steps of the search say of the longest history, and of one without items beside it, what
    the model says when it reads each alone. Some ten short forward passes."""
    name, training, advice = _name(model), model.training, "Use a model such as Qwen3, Llama, GPT-2 or T5."
    model.eval()
    try:
        off = _trial(model, layout, layout.longest(max_history) - layout.levels)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever it is that this family does not take
        if "memory" in str(error):  # of a CPU
            raise
        raise SettingError(
            f"{name} cannot read the beams of a user side by side, as the search over codes does "
            f"({type(error).__name__}: {error}). {advice}"
        ) from error
    finally:
        model.train(training)
    if not math.isfinite(off):
        raise SettingError(
            f"{name} gives numbers that are not finite: its training has diverged, or its weights are too large for "
            f"{model.dtype}. Train with a smaller training.learning_rate, or load it in float32."
        )
    tolerance = TOLERANCE if model.dtype == torch.float32 else HALF_TOLERANCE
    if off > (tolerance if getattr(model, "quantization_method", None) is None else PACKED_TOLERANCE):
        raise SettingError(
            f"{name} would not decode exactly: of beams side by side it says something else than of each alone (hidden vectors "
            f"are {off:.0%} of their length apart), so its places, its memory or its mask are of a kind that the search over "
            f"codes does not know. {advice}"
        )


def _name(model: PreTrainedModel) -> str:
    """Of the model itself, not of peft's wrapper around it."""
    return type(getattr(model, "get_base_model", lambda: model)()).__name__


def _trial(model: PreTrainedModel, layout: TokenLayout, longest: int) -> float:
    """How far the steps are from the model alone, as a share of the hidden vectors' length: for each history the middle one of
    its vectors, as a mixture of experts may flip one by rounding; of the two histories the larger."""
    device = model.device
    sizes, offsets = (torch.tensor(numbers, device=device) for numbers in (layout.sizes, layout.offsets.tolist()))

    def spell(levels: Tensor, numbers: Tensor) -> Tensor:
        return offsets[levels] + numbers % sizes[levels]

    places, beams = torch.arange(longest - 1, device=device), torch.arange(BEAMS, device=device)
    first = torch.tensor([layout.start], device=device)
    histories = [torch.cat([first, spell(places % layout.levels, places)]), first]
    tokens = torch.full((2, longest), layout.pad, device=device)
    for row, history in zip(tokens, histories, strict=True):
        row[longest - len(history) :] = history
    mask = torch.arange(longest, device=device) >= longest - torch.tensor([[longest], [1]], device=device)
    steps = start(model, tokens, mask)
    found, paths = [steps.hidden], torch.zeros(1, 0, dtype=torch.int64, device=device)  # [W, level]
    for level in range(layout.levels - 1):
        parents = (3 * beams + 1) % len(paths)
        written = spell(torch.full_like(beams, level), beams + level)
        paths = torch.cat([paths[parents], written[:, None]], dim=1)
        hidden = steps.advance(written.expand(2, -1), parents.expand(2, -1))
        if level == layout.levels - 2:
            found.append(hidden[:, COMPARED])
    asked = [paths[:1, :0], *([paths[list(COMPARED)]] if layout.levels > 1 else [])]
    wanted = [torch.cat([_alone(model, history, path) for path in asked]) for history in histories]
    both = torch.cat(found, dim=1).float(), torch.stack(wanted).float()  # [2, 1 + D, H]
    apart = (both[0] - both[1]).norm(dim=-1) / both[1].norm(dim=-1).clamp(min=1e-9)
    return float(apart.median(dim=1).values.max())


def _alone(model: PreTrainedModel, history: Tensor, paths: Tensor) -> Tensor:
    """What the model says after a history [T] and each of some paths [D, level], read as it reads any text: [D, H]."""
    histories = history.expand(len(paths), -1)
    if not model.config.is_encoder_decoder:
        return model.get_decoder()(input_ids=torch.cat([histories, paths], dim=1)).last_hidden_state[:, -1]
    written = torch.cat([paths.new_full((len(paths), 1), model.config.decoder_start_token_id), paths], dim=1)
    read = model.get_encoder()(input_ids=histories).last_hidden_state
    return model.get_decoder()(input_ids=written, encoder_hidden_states=read).last_hidden_state[:, -1]
