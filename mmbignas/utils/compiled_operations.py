"""Operations that MMCV has compiled, on the meta device: shapes alone."""
from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor
from torch.fx.experimental import _config as config_of_shapes

SHAPES_CONFIG: Any = config_of_shapes
Shapes = Callable[..., tuple[int, ...]]


def _regions(features: Tensor, rois: Tensor, size: Any, *args: Any) -> tuple[int, ...]:
    height, width = (size, size) if isinstance(size, int) else size
    return (len(rois), features.shape[1], height, width)


def _deformable(image: Tensor, offset: Tensor, weight: Tensor, *args: Any) -> tuple[int, ...]:
    return (image.shape[0], weight.shape[0], *offset.shape[2:])


def _modulated(image: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, *args: Any) -> tuple[int, ...]:
    return _deformable(image, offset, weight)


# Class of mmcv.ops -> the shape of what its forward returns, by its arguments without the context.
SHAPES: dict[str, Shapes] = {
    'roi_align.RoIAlignFunction': _regions,
    'roi_pool.RoIPoolFunction': _regions,
    'deform_conv.DeformConv2dFunction': _deformable,
    'modulated_deform_conv.ModulatedDeformConv2dFunction': _modulated,
}


@contextmanager
def compiled_operations_on_shapes() -> Iterator[None]:
    """Within the context, these operations compute meta tensors too, and all places of one count as not zero."""
    with ExitStack() as stack:
        stack.enter_context(SHAPES_CONFIG.patch(meta_nonzero_assume_all_nonzero=True))
        for name, shape in SHAPES.items():
            stack.enter_context(_on_shapes(name, shape))
        yield


@contextmanager
def _on_shapes(name: str, shape: Shapes) -> Iterator[None]:
    module, _, cls = name.rpartition('.')
    try:
        function = getattr(importlib.import_module(f'mmcv.ops.{module}'), cls)
    except (ImportError, AttributeError):  # MMCV without its compiled part
        yield
        return
    before, original = vars(function)['forward'], function.forward

    def forward(ctx: Any, first: Tensor, *args: Any) -> Any:
        return first.new_empty(shape(first, *args)) if first.is_meta else original(ctx, first, *args)

    function.forward = staticmethod(forward)
    try:
        yield
    finally:
        function.forward = before
