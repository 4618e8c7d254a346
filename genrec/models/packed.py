"""Packed linear layers: what decoding on a CPU spends its time on, at the speed that oneDNN reaches.

In: a float32 model that will not be trained any more. Out: the same model, its linear layers in oneDNN's own layout. Plain
PyTorch multiplies float32 matrices with MKL, which leaves AVX-512 unused on CPUs that are not Intel's; there the same product
takes less than half the time packed. Sums are made in another order, so results agree up to rounding, as between batch sizes.
"""

import logging
import platform

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

log = logging.getLogger(__name__)


class PackedLinear(nn.Module):
    """`nn.Linear` for inference: its weight is kept packed only. weight: opaque, [out, in] to those who ask for its type."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")


@torch.inference_mode()
def pack_linears(model: PreTrainedModel) -> int:
    """Pack the float32 linear layers of `model` in place, except its output layer (read in slices). Returns how many.

    Where this PyTorch or this CPU cannot, the model stays as it was: slower, the same answers.
    """
    if platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available():
        return 0
    output = model.get_output_embeddings()
    places = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear and child is not output and child.weight.dtype == torch.float32
    ]
    if not places or not _works(places[0][2]):
        return 0
    for parent, name, child in places:
        setattr(parent, name, PackedLinear(child))
    return len(places)


def _works(linear: nn.Linear) -> bool:
    """Whether the packed layer gives what the layer gives: the operators are PyTorch's own but not part of its promises."""
    x = torch.randn(3, linear.in_features)
    try:
        if torch.allclose(PackedLinear(linear)(x), linear(x), rtol=1e-4, atol=1e-4):
            return True
        reason = "its results differ"
    except (RuntimeError, AttributeError, TypeError) as error:
        reason = str(error).splitlines()[0]
    log.warning("PyTorch %s cannot pack linear layers here (%s). Decoding is slower.", torch.__version__, reason)
    return False
