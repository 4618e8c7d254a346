"""What preference optimisation compares: log-probabilities of several items after one history, and two losses of them.

In: a decoder, histories and candidate items as codes. Out: log P(codes | history) of each, with gradients, and the losses of
S-DPO (arXiv 2406.09215, which with one negative is DPO, arXiv 2305.18290) and GRPO (arXiv 2402.03300).

An item is one action: its codes are compared together, as a beam compares them. All candidates of a history stand side by side
behind it in one sequence, as beams do, so a history is read once however many there are.

Legend: `B` histories, `T` history tokens, `G` candidates, `L` levels, `S` = G * (L - 1) tokens behind the history.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import PreTrainedModel

from genrec.decoding.steps import Head
from genrec.models.tokens import TokenLayout
from genrec.models.user_adapter import read_inputs

CLIP = 0.2  # how far the probability of an item may move before GRPO stops pushing it


def candidate_log_probs(
    model: PreTrainedModel,
    head: Head,
    layout: TokenLayout,
    tokens: Tensor,
    mask: Tensor,
    codes: Tensor,
    soft: Tensor | None = None,
) -> Tensor:
    """log P of each candidate under the full softmax: float32 [B, G]. tokens, mask: [B, T], padded on the left
    (`write_histories`). codes: int64 [B, G, L]. soft: [B, S, H], of a user adapter."""
    users, group, levels = codes.shape
    length, device = tokens.shape[1], tokens.device
    mask = mask.bool()
    written = (codes + torch.as_tensor(layout.offsets, device=device))[..., :-1].flatten(1)
    steps = torch.arange(levels - 1, device=device).repeat(group)
    own = torch.ones(levels - 1, levels - 1, dtype=torch.bool, device=device).tril()
    visible = torch.zeros(users, length + len(steps), length + len(steps), dtype=torch.bool, device=device)
    visible[:, :length, :length] = torch.ones(length, length, dtype=torch.bool, device=device).tril() & mask[:, None]
    visible[:, length:, :length] = mask[:, None]
    visible[:, length:, length:] = torch.block_diag(*[own] * group)
    dtype = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else model.dtype
    additive = torch.zeros(visible.shape, dtype=dtype, device=device).masked_fill_(~visible, torch.finfo(dtype).min)
    positions = torch.cat([(mask.long().cumsum(1) - 1).clamp(min=0), mask.sum(1, keepdim=True) + steps], dim=1)
    hidden = model.get_decoder()(
        **read_inputs(model, torch.cat([tokens, written], dim=1), soft),
        attention_mask=additive.unsqueeze(1),
        position_ids=positions,
        use_cache=False,
    ).last_hidden_state
    after = hidden[:, length:].view(users, group, levels - 1, hidden.shape[-1])
    total, first = torch.zeros(users, group, device=device), layout.base
    for level, size in enumerate(layout.sizes):
        if level:
            log_probs = head.log_probs(after[:, :, level - 1], first, size)
        else:
            log_probs = head.log_probs(hidden[:, length - 1 : length], first, size).expand(-1, group, -1)
        total = total + log_probs.gather(-1, codes[..., level : level + 1]).squeeze(-1)
        first += size
    return total


def preference_loss(log_probs: Tensor, reference: Tensor, there: Tensor, beta: float) -> Tensor:
    """S-DPO: the first candidate, which is the one that was taken, shall gain on all others together. log_probs, reference: [B,
    G], of the model and of the one that it began as. there: bool [B, G], False where a place is empty. beta: how much a gain
    counts; the smaller, the further the model may move."""
    gain = beta * (log_probs - reference)
    others = (gain[:, 1:] - gain[:, :1]).masked_fill(~there[:, 1:], -torch.inf)
    return -logsigmoid(-others.logsumexp(1)).mean()


def group_loss(log_probs: Tensor, reference: Tensor, advantages: Tensor, there: Tensor, beta: float) -> Tensor:
    """GRPO: candidates of an advantage above 0 shall become more probable, the others less, within `CLIP` of where they were.
    advantages: [B, G]. beta: weight of the distance to the model that it began as."""
    moved = (log_probs - reference).masked_fill(~there, 0.0)
    ratio = moved.exp()
    pushed = torch.minimum(ratio * advantages, ratio.clamp(1 - CLIP, 1 + CLIP) * advantages)
    distance = (-moved).exp() + moved - 1  # never below 0, and the divergence in expectation
    return (((beta * distance - pushed) * there).sum(1) / there.sum(1)).mean()
