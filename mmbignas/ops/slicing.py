"""Cutting the parameters of a subnet's layer out of those of a supernet's layer."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def plain_state(state: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Cut the state of a plain layer out of that of a dynamic layer, see :meth:`DynamicLayer.subnet_state`.

    The names in the state tell what kind of layer it is: ``narrow.16.weight`` belongs to the normalisation of width 16
    of a :class:`~mmbignas.ops.SwitchableBatchNorm2d`, ``transforms.7to5`` to a learned kernel transform. Everything
    else is cut by :func:`crop`.
    """
    transforms = {name.removeprefix('transforms.'): value for name, value in state.items()
                  if name.startswith('transforms.')}
    cut = {}
    for name, shape in shapes.items():
        source = _switched(state, name, shapes)
        if source in state:
            value = state[source]
            kernel = name == 'weight' and transforms
            cut[name] = (crop_kernel(value, transforms, shape) if kernel else crop(value, shape)).detach().clone()
    return cut


def _switched(state: Mapping[str, Tensor], name: str, shapes: Mapping[str, Sequence[int]]) -> str:
    """The name of an entry in the state of a layer that may have one normalisation per width."""
    narrow = sorted({int(key.split('.')[1]) for key in state if key.startswith('narrow.')})
    width = next((shape[0] for shape in shapes.values() if shape), None)
    full = next((value.shape[0] for key, value in state.items() if '.' not in key and value.dim()), None)
    if not narrow or width in (None, full):
        return name
    if width not in narrow:
        known = ', '.join(map(str, [*narrow, full]))
        raise ValueError(f'there are no statistics for width {width}; there are those of {known}')
    return f'narrow.{width}.{name}'


def crop_kernel(weight: Tensor, transforms: Mapping[str, Tensor], shape: Sequence[int]) -> Tensor:
    """The first channels of a convolution's weight, with a smaller kernel by learned transforms.

    Args:
        weight: shape ``(out, in, k, k)``.
        transforms: ``'7to5'`` -> the ``25 x 25`` matrix that the centre is multiplied by, and so on, in this order; a
            kernel of the full size needs none.
        shape: the shape to cut to.

    Raises:
        ValueError: for a kernel size that no transform leads to.
    """
    if shape[2] == weight.shape[2]:
        return crop(weight, shape)
    full, weight = weight, crop(weight, (*shape[:2], *weight.shape[2:]))
    # In full precision, as the weight of a plain network is computed. There is no autocast on the meta device.
    with nullcontext() if weight.is_meta else torch.autocast(weight.device.type, enabled=False):
        for name, matrix in transforms.items():
            small = int(name.split('to')[1])
            if small < shape[2]:
                break
            weight = crop(weight, (*shape[:2], small, small))
            # Of two dimensions and contiguous, so that all networks and their exports multiply in the same way.
            rows = weight.contiguous().view(-1, small * small)
            weight = F.linear(rows, matrix).view(*shape[:2], small, small)
    if weight.shape[2] != shape[2]:
        raise ValueError(f'kernel size {shape[2]} has no transform; there are: {", ".join(transforms)}')
    return in_format_of(full, weight)


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
    return in_format_of(parameter, torch.constant_pad_nd(parameter, pads))


def is_channels_last(tensor: Tensor) -> bool:
    """Whether the channels of a pixel lie side by side in memory, by the strides alone.

    Torch's ``is_contiguous(memory_format=...)`` passes over dimensions of one element. The choice of an algorithm does
    not: a 1x1 kernel has one format or the other.
    """
    if tensor.dim() != 4:
        return False
    _, channels, height, width = tensor.shape
    if channels == height == width == 1:  # both formats are the same
        return False
    return tensor.stride() == (height * width * channels, 1, width * channels, channels)


def in_format_of(parameter: Tensor, cut: Tensor) -> Tensor:
    """What was cut out of a parameter, in the memory format that the parameter has.

    A plain network's weight has the format of the whole network, and by it torch chooses how to compute, so that
    another format gives other last digits.
    """
    return cut.to(memory_format=torch.channels_last) if is_channels_last(parameter) else cut


def as_parameter(parameter: Tensor, cut: Tensor) -> Tensor:
    """What was cut out of a parameter, as one that is differentiated, even where gradients are switched off.

    Torch goes by this too when it chooses how to multiply, and a plain network's parameter has it.
    """
    if parameter.requires_grad and not cut.requires_grad and not torch.is_grad_enabled():
        cut.requires_grad_()
    return cut
