"""Steps of a language model for many beams at once: the history read once per user, then one code per beam and step.

In: a Hugging Face model and histories as tokens. Out: per step, one hidden vector per beam; `Head` turns it into
log-probabilities of one level's codes under the full softmax.

- `CausalSteps` (Qwen, Llama, GPT-2, ...): the history's keys and values are kept once per user. The beams of a user are queries
  side by side in one sequence, and the attention mask lets each see the history and its own ancestors only. So nothing is
  copied per beam, there is no cache to reorder, and a batch of users is one call per level.
- `Seq2SeqSteps` (T5): the encoder and the cross-attention keys and values run once per user. The decoder reads the few codes of
  every beam again at each step, as blocks side by side: its relative positions are distances in the sequence, and inside a
  block they are right.

Legend: `B` users, `T` history tokens, `W` beams, `S` suffix tokens in the cache, `H` hidden size, `V` vocabulary.
"""

import logging
import math
from collections.abc import Callable
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel

from genrec.errors import SettingError
from genrec.models.user_adapter import read_inputs

log = logging.getLogger(__name__)

# Logits of one call are cut into pieces of about this many bytes: a vocabulary of 150,000 words times 800 beams is 480 MB.
HEAD_MEMORY = 64 * 2**20


class Steps(Protocol):
    """hidden: [B, 1, H] after the history, before any code."""

    hidden: Tensor

    def advance(self, tokens: Tensor, parents: Tensor) -> Tensor:
        """Write one more token per beam: tokens, parents int64 [B, W] (which beam of the step before each continues; after
        the history there is one, 0). Returns hidden [B, W, H].
        """
        ...


class CausalSteps:
    """Steps of a decoder-only model. tokens: int64 [B, T], mask: bool [B, T], padded on the left. soft: see `start`."""

    def __init__(self, model: PreTrainedModel, tokens: Tensor, mask: Tensor, soft: Tensor | None = None) -> None:
        self.decoder = model.get_decoder()
        self.dtype = model.dtype
        self.mask, self.lengths, self.level = mask, mask.sum(1), 0
        self.cache = DynamicCache()
        self.seen = torch.zeros(len(tokens), 1, 0, dtype=torch.bool, device=tokens.device)  # [B, W, S]
        output = self.decoder(
            **read_inputs(model, tokens, soft),
            attention_mask=mask.long(),
            position_ids=(mask.long().cumsum(1) - 1).clamp(min=0),
            past_key_values=self.cache,
            use_cache=True,
        )
        self.hidden = output.last_hidden_state[:, -1:]

    def advance(self, tokens: Tensor, parents: Tensor) -> Tensor:
        width = tokens.shape[1]
        # Each beam becomes one more suffix token of its user: it sees what its parent saw, and itself.
        seen = self.seen.gather(1, parents.unsqueeze(-1).expand(-1, -1, self.seen.shape[-1]))
        itself = torch.eye(width, dtype=torch.bool, device=tokens.device).expand(len(tokens), -1, -1)
        self.seen = torch.cat([seen, itself], dim=-1)
        history = self.mask[:, None, :].expand(-1, width, -1)
        output = self.decoder(
            input_ids=tokens,
            attention_mask=_additive(torch.cat([history, self.seen], dim=-1), self.dtype),
            position_ids=(self.lengths + self.level).unsqueeze(1).expand(-1, width),
            past_key_values=self.cache,
            use_cache=True,
        )
        self.level += 1
        return output.last_hidden_state


class Seq2SeqSteps:
    """Steps of a T5-like encoder-decoder. tokens: int64 [B, T], mask: bool [B, T]: what the encoder reads. soft: see
    `start`."""

    def __init__(self, model: PreTrainedModel, tokens: Tensor, mask: Tensor, soft: Tensor | None = None) -> None:
        self.decoder, self.dtype, self.mask = model.get_decoder(), model.dtype, mask.long()
        inputs = read_inputs(model, tokens, soft)
        self.encoded = model.get_encoder()(**inputs, attention_mask=self.mask).last_hidden_state
        self.cross = DynamicCache()
        start = model.config.decoder_start_token_id
        self.paths = torch.full((len(tokens), 1, 1), start, dtype=torch.int64, device=tokens.device)  # [B, W, level + 1]
        self.hidden = self._run()

    def advance(self, tokens: Tensor, parents: Tensor) -> Tensor:
        paths = self.paths.gather(1, parents.unsqueeze(-1).expand(-1, -1, self.paths.shape[-1]))
        self.paths = torch.cat([paths, tokens.unsqueeze(-1)], dim=-1)
        return self._run()

    def _run(self) -> Tensor:
        users, width, length = self.paths.shape
        device = self.paths.device
        block = torch.ones(length, length, dtype=torch.bool, device=device).tril()
        visible = torch.block_diag(*[block] * width) if width > 1 else block
        output = self.decoder(
            input_ids=self.paths.view(users, width * length),
            attention_mask=_additive(visible.expand(users, -1, -1), self.dtype),
            encoder_hidden_states=self.encoded,
            encoder_attention_mask=self.mask,
            past_key_values=EncoderDecoderCache(DynamicCache(), self.cross),
            use_cache=True,
        )
        return output.last_hidden_state.view(users, width, length, -1)[:, :, -1]


def start(model: PreTrainedModel, tokens: Tensor, mask: Tensor, soft: Tensor | None = None) -> Steps:
    """Read the histories and be ready to write codes. soft: what a user adapter [B, S, H] or an item encoder [M, Q, H]
    made for the places of the layout."""
    return (Seq2SeqSteps if model.config.is_encoder_decoder else CausalSteps)(model, tokens, mask, soft)


def _additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Who sees whom, bool [B, Q, K], as the additive [B, 1, Q, K] that every attention implementation takes."""
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min).unsqueeze(1)


class Head:
    """Log-probabilities of one level's codes, normalised over the whole vocabulary.

    Only the level's rows of the output layer are kept; the normaliser is summed piece by piece, so that logits [B, W, V] never
    exist. Models that change their logits (scale them, cap them) are recognised by trying: the rule that reproduces the
    model's own output on one token is taken, and a model that none explains is refused.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.output = cast(nn.Module, model.get_output_embeddings())
        if self.output is None:
            raise SettingError(f"{type(model).__name__} has no output layer to score codes with. Load it as a language model.")
        before, after = self._rule(model)
        self.before, self.after = before, after

    def _rule(self, model: PreTrainedModel) -> tuple[float, Callable[[Tensor], Tensor]]:
        """What the model does around its output layer: a factor on the hidden vectors, a function of the logits."""
        config = model.config.get_text_config(decoder=True)
        afters: list[Callable[[Tensor], Tensor]] = [lambda x: x]
        if scale := getattr(config, "logit_scale", None):
            afters.append(lambda x: x * scale)
        if divisor := getattr(config, "logits_scaling", None):
            afters.append(lambda x: x / divisor)
        if cap := getattr(config, "final_logit_softcapping", None):
            afters.append(lambda x: torch.tanh(x / cap) * cap)
        token = torch.tensor([[1, 1]], device=model.device)
        training = model.training
        model.eval()
        with torch.inference_mode():
            if model.config.is_encoder_decoder:
                wanted = model(input_ids=token, decoder_input_ids=token).logits.float()
                hidden = model.get_decoder()(
                    input_ids=token, encoder_hidden_states=model.get_encoder()(input_ids=token).last_hidden_state
                ).last_hidden_state
            else:
                wanted = model(input_ids=token).logits.float()
                hidden = model.get_decoder()(input_ids=token).last_hidden_state
            # The nearest of all, and near: small logits look almost the same with a cap and without.
            apart, found, close = math.inf, None, False
            for before in (1.0, hidden.shape[-1] ** -0.5):
                if getattr(self.output, "in_features", hidden.shape[-1]) != hidden.shape[-1]:
                    break  # something comes between (ELECTRA)
                logits = self.output(hidden * before).float()
                for after in afters:
                    changed = after(logits)
                    if (off := float((changed - wanted).abs().max())) < apart:
                        apart, found = off, (before, after)
                        close = torch.allclose(changed, wanted, rtol=1e-2, atol=1e-2 * float(wanted.abs().mean() + 1e-6))
        model.train(training)
        if found is not None and close:
            return found
        raise SettingError(
            f"{type(model).__name__} changes its logits in a way that genrec does not know, so scores would be wrong. "
            "Use a model whose logits are its output layer's, scaled or soft-capped at most."
        )

    def log_probs(self, hidden: Tensor, first: int, size: int) -> Tensor:
        """log P of tokens [first, first + size) after each hidden vector [B, W, H]: float32 [B, W, size]."""
        hidden = hidden * self.before if self.before != 1.0 else hidden
        rows = max(1, HEAD_MEMORY // (4 * hidden.shape[0] * hidden.shape[1]))
        # A wrapped layer (LoRA in training) is called whole: its weights are more than its matrix.
        if type(self.output) is not nn.Linear or len(self.output.weight) <= rows:
            logits = self.after(self.output(hidden).float())
            return logits[..., first : first + size] - logits.logsumexp(-1, keepdim=True)
        weight, bias = self.output.weight, self.output.bias
        total = torch.full((*hidden.shape[:2], 1), -torch.inf, device=hidden.device)

        def logits_of(begin: int, end: int) -> Tensor:
            some = None if bias is None else bias[begin:end]
            return self.after(nn.functional.linear(hidden, weight[begin:end], some).float())

        for begin in range(0, len(weight), rows):
            piece = logits_of(begin, min(begin + rows, len(weight))).logsumexp(-1, keepdim=True)
            total = torch.logaddexp(total, piece)
        return logits_of(first, first + size) - total
