"""Taking the positions in use out of a parameter or buffer, and putting values back.

What is taken is one node of autograd, however many pieces it has: its backward pass fills one gradient of the full size
with zeros and writes the pieces into it.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmbignas.ops.slicing import as_parameter, crop, in_format_of, is_channels_last

MANY_PIECES = 8  # from here on, looking up by index is faster than copying piece by piece

Runs = list[tuple[int, int]]  # first position and length of each piece


class Taking:
    """Which positions of a tensor are in use.

    Args:
        index: per axis, the positions in use; ``None`` for an axis that is used whole.
        full: the tensor's full shape.

    Attributes:
        shape: of what is taken.
        is_view: whether what is taken shares memory with the tensor.
    """

    def __init__(self, index: Sequence[np.ndarray | None], full: Sequence[int]) -> None:
        self._runs = [_runs(own, size) for own, size in zip(index, full)]
        self.shape = tuple(sum(length for _, length in runs) for runs in self._runs)
        self.full = tuple(full)
        self._prefix = all(len(runs) == 1 and runs[0][0] == 0 for runs in self._runs)
        self._plain = self._prefix and self.shape[2:] == self.full[2:]
        self.is_view = self._prefix and self.shape[1:] == self.full[1:]
        self._index = [None if own is None else torch.from_numpy(own) for own in index]
        self._by_index = any(len(runs) >= MANY_PIECES for runs in self._runs)

    def __deepcopy__(self, memo: Any) -> Taking:
        return self  # nothing in it changes

    def take(self, tensor: Tensor) -> Tensor:
        """What is in use, as one node of autograd; a view if :attr:`is_view`."""
        if torch.is_grad_enabled():
            if self._plain:
                return crop(tensor, self.shape)
            return _Pieces.apply(tensor, self) if tensor.requires_grad else self.gather(tensor)
        return as_parameter(tensor, crop(tensor, self.shape) if self._plain else self.gather(tensor))

    @torch.no_grad()
    def put(self, tensor: Tensor, values: Tensor) -> None:
        """Write values to the positions in use."""
        for source, target in self._blocks():
            tensor[target] = values[source]

    def gather(self, tensor: Tensor) -> Tensor:
        """A copy of what is in use, in the memory format of the tensor."""
        full = tensor
        if self._by_index:
            for axis, index in enumerate(self._index):
                if index is not None:
                    tensor = tensor.index_select(axis, index.to(tensor.device))
            return in_format_of(full, tensor)
        for axis, runs in enumerate(self._runs):
            if runs != [(0, self.full[axis])]:
                pieces = [tensor.narrow(axis, start, length) for start, length in runs]
                tensor = pieces[0] if len(pieces) == 1 else torch.cat(pieces, axis)
        kind = torch.channels_last if is_channels_last(full) else torch.contiguous_format
        return tensor.clone(memory_format=kind) if tensor._is_view() else in_format_of(full, tensor.contiguous())

    def scatter(self, gradient: Tensor) -> Tensor:
        """Zeros of the full shape with ``gradient`` at the positions in use."""
        full = gradient.new_zeros(self.full)
        if self._by_index:
            device = gradient.device
            index = [torch.arange(size) if own is None else own for own, size in zip(self._index, self.full)]
            mesh = [own.to(device).view(-1, *[1] * (len(index) - 1 - axis)) for axis, own in enumerate(index)]
            return full.index_put(tuple(mesh), gradient)
        for source, target in self._blocks():
            full[target] = gradient[source]
        return full

    def positions(self, axis: int) -> Tensor | slice:
        """The positions in use along one axis, to index with."""
        index, runs = self._index[axis], self._runs[axis]
        if index is None or len(runs) == 1:
            return slice(runs[0][0], sum(runs[0]))
        return index

    def _blocks(self) -> list[tuple[tuple[slice, ...], tuple[slice, ...]]]:
        """Per piece: where it lies in what is taken, and where in the tensor."""
        blocks: list[tuple[tuple[slice, ...], tuple[slice, ...]]] = [((), ())]
        for runs in self._runs:
            done, pairs = 0, []
            for start, length in runs:
                pairs.append((slice(done, done + length), slice(start, start + length)))
                done += length
            blocks = [((*source, one), (*target, other)) for source, target in blocks for one, other in pairs]
        return blocks


def _runs(index: np.ndarray | None, size: int) -> Runs:
    """Consecutive positions, together."""
    if index is None:
        return [(0, size)]
    starts = np.flatnonzero(np.diff(index, prepend=-2) != 1)
    return [(int(index[start]), int(end - start)) for start, end in zip(starts, [*starts[1:], len(index)])]


class _Pieces(torch.autograd.Function):
    """What :class:`Taking` takes, where it lies in pieces."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, taking: Taking) -> Tensor:
        ctx.taking = taking
        return taking.gather(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.taking.scatter(gradient), None
