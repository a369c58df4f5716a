"""What every dynamic layer has in common, and the slicing of parameters."""
from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


class DynamicLayer(nn.Module):
    """A torch layer that can compute with the first part of its parameters.

    A dynamic layer subclasses the torch layer it stands for and keeps its state-dict keys. It takes its input width
    from the tensor; its output width (and kernel size, groups) are attributes that the block around it sets.
    """

    @abstractmethod
    def subnet_state(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
        """The state of the plain layer that computes what this one does for some subnet.

        Args:
            shapes: name of each parameter and buffer of the plain layer -> its shape.

        Returns:
            dict: the same names -> detached tensors of these shapes.
        """

    @abstractmethod
    def plain_shapes(self, input_shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
        """The parameters of the plain layer that computes what this one does now.

        Args:
            input_shape: shape of the input.

        Returns:
            dict: name of each parameter -> its shape.
        """


def crop(parameter: Tensor, shape: Sequence[int]) -> Tensor:
    """The first channels of a parameter and the centre of its kernel.

    One autograd node, so that the backward pass fills one gradient of the full size with zeros, not one for each
    sliced dimension; where nothing or only the first dimension is cut, no data is copied.

    Args:
        parameter: shape ``(out, in, k, k)``, ``(out, in)`` or ``(out,)``.
        shape: the shape to cut to.

    Raises:
        ValueError: when the parameter is smaller than that in some dimension.
    """
    if tuple(parameter.shape) == tuple(shape):
        return parameter
    if any(have < want for have, want in zip(parameter.shape, shape, strict=True)):
        raise ValueError(f'cannot cut {tuple(shape)} out of a parameter of shape {tuple(parameter.shape)}')
    if tuple(parameter.shape[1:]) == tuple(shape[1:]):
        return parameter[:shape[0]]
    pads: list[int] = []
    for dim in range(parameter.dim() - 1, -1, -1):
        surplus = parameter.shape[dim] - shape[dim]
        pads += [-(surplus // 2), -(surplus - surplus // 2)] if dim >= 2 else [0, -surplus]
    return torch.constant_pad_nd(parameter, pads)
