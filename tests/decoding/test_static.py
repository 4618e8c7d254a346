"""What a CUDA graph needs: shapes known beforehand, nothing read back from the device. Checked without one, on fake tensors."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from worlds import FAMILIES, make_ranker

from genrec.decoding.allowed import Allowed, Bitmap
from genrec.decoding.beam import beam_search
from genrec.decoding.index import CatalogueIndex
from genrec.decoding.overlay import Overlay
from genrec.models.tokens import write_histories

SIZES = (5, 6, 4)


def search(family: str, overlay: bool, static: bool) -> tuple[torch.Size, torch.Size]:
    """Run on tensors without values: any look at a value raises."""
    codes = np.random.default_rng(0).integers(0, SIZES, (80, 3))
    ranker = make_ranker(SIZES, codes, 1, family)
    index: CatalogueIndex | Overlay = ranker.snapshot.index
    if overlay:
        rows = np.arange(80)
        index = Overlay.join(
            *(CatalogueIndex.build(codes[part], SIZES, rows=rows[part]) for part in (slice(60), slice(60, 80)))
        )
    tokens, mask = map(torch.from_numpy, write_histories([np.array([1, 2]), np.array([], int)], codes, ranker.layout))
    excluded = torch.tensor([[3, 4], [70, -1]])
    allowed = Allowed.of(80, [Bitmap.from_mask(np.arange(80) % 3 > 0)], excluded=excluded)
    beam_search(ranker.model, ranker.head, tokens, mask, index, ranker.layout, 7, 9, allowed, True)  # fills caches
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        tokens, mask = mode.from_tensor(tokens), mode.from_tensor(mask)
        rows, scores = beam_search(ranker.model, ranker.head, tokens, mask, index, ranker.layout, 7, 9, allowed, static=static)
    return rows.shape, scores.shape


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("overlay", [False, True])
def test_static_shapes_need_no_value_on_the_host(family: str, overlay: bool) -> None:
    assert search(family, overlay, static=True) == ((2, 7), (2, 7))


def test_the_check_would_notice() -> None:
    """With fitting shapes the number of children is read back, which a fake tensor does not allow."""
    with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
        search("qwen3", overlay=False, static=False)
