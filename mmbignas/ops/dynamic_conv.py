"""A convolution whose width, kernel size and number of groups can be reduced."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmbignas.ops.dynamic_layer import DynamicLayer
from mmbignas.ops.slicing import as_parameter, crop, crop_kernel
from mmbignas.registry import MODELS
from mmbignas.utils.rules import must_be


@MODELS.register_module()
class DynamicConv2d(nn.Conv2d, DynamicLayer):
    """``nn.Conv2d`` that computes with its first output and input channels and a smaller kernel.

    The padding follows the kernel, so the output is as large as with the full kernel. A smaller kernel is
    the centre of the full one. With ``kernel_transform`` it is the centre times a learned ``k^2 x k^2`` matrix, step
    by step from each size in ``kernel_sizes`` to the next smaller one (Once-for-All, arXiv 1908.09791, section 3.3).

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: of the full layer, as for
            ``nn.Conv2d``.
        kernel_sizes: the sizes that the kernel may take; needed for ``kernel_transform`` only.
        kernel_transform: learn a matrix for each step from one kernel size to the next smaller one.

    Attributes:
        active_out_channels: output channels in use.
        active_kernel_size: kernel size in use.
        active_groups: groups in use.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int], *args: Any,
                 kernel_sizes: Sequence[int] | None = None, kernel_transform: bool = False, **kwargs: Any) -> None:
        super().__init__(in_channels, out_channels, kernel_size, *args, **kwargs)
        if self.padding_mode != 'zeros' or isinstance(self.padding, str):
            raise must_be('DynamicConv2d: padding, padding_mode', "numbers, 'zeros'", (self.padding, self.padding_mode))
        if self.kernel_size[0] != self.kernel_size[1]:
            raise must_be('DynamicConv2d.kernel_size', 'square', self.kernel_size)
        self.active_out_channels = self.out_channels
        self.active_kernel_size = self.kernel_size[0]
        self.active_groups = self.groups
        self.transforms = nn.ParameterDict()
        if kernel_transform:
            sizes = sorted({self.kernel_size[0], *(kernel_sizes or ())}, reverse=True)
            for large, small in zip(sizes, sizes[1:]):
                self.transforms[f'{large}to{small}'] = nn.Parameter(torch.eye(small * small))
        self._shared: dict[tuple[int, ...], Tensor] | None = None

    def active_weight(self, in_channels: int) -> Tensor:
        """The weight in use for an input of ``in_channels`` channels, shape ``(out, in / groups, k, k)``."""
        return self._once(self._active_shape(in_channels), self._cut)

    def _active_bias(self) -> Tensor | None:
        bias = self.bias
        return None if bias is None else self._once((self.active_out_channels,), partial(crop, bias))

    def _once(self, shape: tuple[int, ...], cut: Callable[[tuple[int, ...]], Tensor]) -> Tensor:
        """A parameter cut to a shape, within :func:`shared_weights` once."""
        if self._shared is None:
            return cut(shape)
        if shape not in self._shared:
            self._shared[shape] = _autocast_once(cut(shape))
        return self._shared[shape]

    def _cut(self, shape: Sequence[int]) -> Tensor:
        if not self.transforms:
            return as_parameter(self.weight, crop(self.weight, shape))
        return as_parameter(self.weight, crop_kernel(self.weight, dict(self.transforms.items()), shape))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``x`` of shape ``(N, C, H, W)``; ``C`` decides how many input channels are in use."""
        weight, bias = self.active_weight(x.shape[1]), self._active_bias()
        surplus = (self.kernel_size[0] - self.active_kernel_size) // 2
        assert not isinstance(self.padding, str)
        padding = [pad - surplus * dilation for pad, dilation in zip(self.padding, self.dilation)]
        return F.conv2d(x, weight, bias, self.stride, padding, self.dilation, self.active_groups)

    def _active_shape(self, in_channels: int) -> tuple[int, ...]:
        size = self.active_kernel_size
        return self.active_out_channels, in_channels // self.active_groups, size, size

    def plain_shapes(self, input_shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
        weight = self._active_shape(input_shape[1])
        return dict(weight=weight) if self.bias is None else dict(weight=weight, bias=weight[:1])


def _autocast_once(weight: Tensor) -> Tensor:
    """A weight in the type that autocast computes convolutions in, where it is on.

    Autocast itself keeps what it has converted of a plain network's weight, but not of a slice. Several uses of it
    would be converted one by one, and their gradients added in another precision than the plain network's.
    """
    kind = weight.device.type
    # There is no autocast on the meta device, and no such function before torch 2.4.
    if weight.is_meta or not hasattr(torch, 'get_autocast_dtype') or not torch.is_autocast_enabled(kind):
        return weight
    return weight.to(torch.get_autocast_dtype(kind))


@contextmanager
def shared_weights(*layers: nn.Module) -> Iterator[None]:
    """Within the context each dynamic convolution among ``layers`` cuts its weight once and keeps it.

    For layers that are called several times in one forward pass, such as a head's on all pyramid levels: one slice
    and one zero-filled gradient instead of one per level.
    """
    dynamic = [layer for layer in layers if isinstance(layer, DynamicConv2d)]
    for layer in dynamic:
        layer._shared = {}
    try:
        yield
    finally:
        for layer in dynamic:
            layer._shared = None
