"""What backbones of a stem and stages of blocks have in common."""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn

from mmbignas.models.checkpointing import checkpointed
from mmbignas.models.searchable import SearchableBlocks
from mmbignas.space import ModuleSpace
from mmbignas.utils.rules import boolean, check_options, integer, list_of, must_be, number

# Builds a block from its stage, its number in the stage, the choices for its input's width, and its drop-path rate.
BuildBlock = Callable[[int, int, Sequence[int], float], nn.Module]


class StagedBackbone(SearchableBlocks, BaseModule):
    """A stem, which is stage 0, and stages ``layer1``, ``layer2``, ... of blocks.

    Args:
        elements: ``depth``, ``out_channel`` and others, of the search space.
        strides: stride of the stem's first convolution and of the first block of each stage; as many as stages.
        out_indices: which of ``layer1`` (0), ``layer2`` (1), ... to return.
        plain_stem: elements that a stem without an inner width or groups does not have, so cannot choose.
        with_cp: keep no activations of the stem and of the blocks, see :func:`~mmbignas.models.checkpointed`.
        init_cfg: as in MMEngine. Default: Kaiming.

    Raises:
        ConfigError: for a space that no subnet could be drawn from, or a value that does not fit.
    """

    stem: nn.Module

    def __init__(self, elements: Mapping[str, Any], strides: Sequence[int], num_stages: int,
                 out_indices: Sequence[int], plain_stem: Sequence[str] = (), with_cp: bool = False,
                 init_cfg: Any = None) -> None:
        if init_cfg is None:
            init_cfg = [dict(type='Kaiming', layer='Conv2d'),
                        dict(type='Constant', val=1, layer=['_BatchNorm', 'BatchNorm2d'])]
        super().__init__(init_cfg)
        key = type(self).__name__
        last = num_stages - 2
        check_options(key, locals(), dict(
            strides=list_of(integer(1), f'a list of {num_stages} integers >= 1, one per stage', num_stages, num_stages),
            out_indices=list_of(integer(0, last), f'a non-empty list of integers from 0 to {last}', least=1),
            with_cp=boolean()))
        self.with_cp = with_cp
        self.strides, self.out_indices = tuple(strides), tuple(out_indices)
        self.search_space = space = ModuleSpace(elements, num_stages, key=key)
        if space.choices('depth', 0) != (1,):
            raise must_be(f'{key}.depth', '1 in stage 0, the stem', list(space.choices('depth', 0)))
        for name in plain_stem:
            if len(space.choices(name, 0)) > 1:
                raise must_be(f'{key}.{name}', f'one value in stage 0, the stem, which has no {name}',
                              list(space.choices(name, 0)))

    def _choices(self, name: str, stage: int, block: int = 0) -> tuple[int, ...]:
        """Ascending choices of an element with integers."""
        return tuple(int(value) for value in self.search_space.choices(name, stage, block))

    def _add_stages(self, build: BuildBlock, drop_path_rate: float) -> None:
        """Build all blocks; the drop-path rate grows linearly from 0 at the first to this at the last."""
        number(0, below=1).check(drop_path_rate, f'{type(self).__name__}.drop_path_rate')
        depths = [self._choices('depth', stage)[-1] for stage in range(1, self.search_space.num_stages)]
        count, inputs = 0, self._choices('out_channel', 0)
        for stage, depth in enumerate(depths, 1):
            blocks = []
            for block in range(depth):
                blocks.append(build(stage, block, inputs, drop_path_rate * count / max(sum(depths) - 1, 1)))
                inputs = self._choices('out_channel', stage)
                count += 1
            self.add_module(f'layer{stage}', ModuleList(blocks))

    @property
    def total_stride(self) -> int:
        """Pixels of the image between two neighbours of the coarsest feature."""
        return math.prod(self.strides)

    def searchable_blocks(self) -> Iterator[tuple[nn.Module, int, int]]:
        yield self.stem, 0, 0
        for stage in range(1, self.search_space.num_stages):
            for index, block in enumerate(getattr(self, f'layer{stage}')):
                yield block, stage, index

    def _compute(self, block: nn.Module, x: Tensor) -> Tensor:
        return checkpointed(block, x) if self.with_cp else block(x)

    def _after_stem(self, x: Tensor) -> Tensor:
        """What happens to the stem's output."""
        return x

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the features of images ``(N, in_channels, H, W)``.

        Returns:
            tuple: features of the stages in ``out_indices``, each ``(N, out_channel, H / stride, W / stride)``.
        """
        x = self._after_stem(self._compute(self.stem, x))
        outputs = []
        for index in range(self.search_space.num_stages - 1):
            for block in getattr(self, f'layer{index + 1}'):
                if getattr(block, 'is_active', True):
                    x = self._compute(block, x)
            if index in self.out_indices:
                outputs.append(x)
        return tuple(outputs)
