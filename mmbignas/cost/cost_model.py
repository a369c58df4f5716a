"""What a subnet costs, as a function of its settings."""
from __future__ import annotations

import random
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import nn

from mmbignas.cost.operation_counter import NeededCounter, OperationCounter
from mmbignas.cost.program import Call, Program
from mmbignas.cost.settings import UnitSettings
from mmbignas.cost.shadow import Shadow, UnknownShapesError
from mmbignas.errors import ConfigError
from mmbignas.space import Subnet
from mmbignas.utils.rules import must_be, shown

TRIAL_SUBNETS = 3


class ModuleCost(NamedTuple):
    """What a part of a subnet costs.

    Args:
        macs: multiply-adds of convolutions and linear layers, which papers and the configs' ``flops_range`` call FLOPs.
        ops: the total of MMEngine's complexity analysis, which also counts normalisation, upsampling and pooling: the
            figure of MMDetection's ``get_flops.py``.
        params: number of parameters.
    """

    macs: int
    ops: int
    params: int


class Cost(NamedTuple):
    """What a subnet costs.

    Args:
        macs, ops, params: see :class:`ModuleCost`.
        modules: the same for each child of the model, e.g. ``backbone``; '' for what belongs to none.
    """

    macs: int
    ops: int
    params: int
    modules: dict[str, ModuleCost]


class CostModel:
    """MACs, operations and parameters of any subnet, as a function of its settings.

    It is exact and needs no weights: the model is run on shapes alone, and each block only once per combination of its
    own settings and input shapes. From then on a subnet takes a few table look-ups. What is counted is what MMEngine's
    complexity analysis counts in the exported network, in mode ``tensor`` on one image; a two-stage detector looks at
    ``test_cfg.rpn.max_per_img`` proposals (see :mod:`mmbignas.supernet.forward_inputs`).

    This relies on what modules say about which block depends on which settings (see
    :class:`~mmbignas.models.SearchableBlocks`). So some subnets are also run as a whole at the start. If they disagree,
    every subnet is run as a whole, and a warning says so.

    Args:
        model: a supernet, also on the meta device, or a wrapper such as DDP around one. It is left as it is.
        image_sizes: height and width in pixels of each resolution, ascending.

    Raises:
        ConfigError: for invalid sizes, a model whose shapes go by the contents of an image, or a sum of
            ``torch.einsum`` that MMEngine does not count.

    Attributes:
        space: the model's :class:`~mmbignas.space.SearchSpace`; several ``image_sizes`` are a dimension of it.

    Example:
        >>> cost_model = CostModel(model, [(768, 1344)])
        >>> cost_model(cost_model.space[12345]).macs
        86569233408
    """

    def __init__(self, model: nn.Module, image_sizes: Sequence[Sequence[int]]) -> None:
        if len(image_sizes) == 0:
            raise must_be('image_size', 'a non-empty list of [height, width] in pixels', image_sizes)
        self._shadow = Shadow(model)
        self.space = self._shadow.supernet.space.with_image_sizes(image_sizes)
        sizes = self.space.image_sizes
        self._only = sizes[0] if len(sizes) == 1 else None
        self._programs: dict[tuple[int, int], Program | None] = {}
        self._looked_up: dict[tuple[int, int], Callable[[Subnet], dict[str, list[int]]]] = {}
        elastic: Any = getattr(self._shadow.supernet.model, 'elastic', None)
        self._is_elastic = hasattr(elastic, 'cost_formula')
        if self._is_elastic:
            try:
                self._looked_up = {size: self._shadow.guarded(elastic.cost_formula, size) for size in sizes}
            except UnknownShapesError:
                self._shadow = Shadow(model, 'cpu')  # shapes go by numbers in tensors
                elastic = self._shadow.supernet.model.elastic
                self._looked_up = {size: self._shadow.guarded(elastic.cost_formula, size) for size in sizes}
        else:
            settings = UnitSettings(self._shadow)
            programs = {size: Program(self._shadow, settings, size) for size in sizes}
            self._programs.update(programs)
            self._looked_up = {size: program.cost for size, program in programs.items()}
        self._divided = self._is_divided()

    def _size(self, subnet: Subnet) -> tuple[int, int]:
        size = subnet.image_size or self._only
        if size not in self._looked_up:
            raise must_be('image_size', f'one of {shown([list(known) for known in self._looked_up])}',
                          size and list(size))
        return size

    def __call__(self, subnet: Subnet) -> Cost:
        """The cost of a canonical subnet of :attr:`space`. Raises ConfigError for a subnet of another space."""
        size = self._size(subnet)
        try:
            groups = self._looked_up[size](subnet) if self._divided else self._as_a_whole(subnet)
        except KeyError:
            self._shadow.supernet.apply({path: subnet[path] for path in subnet})  # says what is missing
            raise
        macs, ops, params = map(sum, zip(*groups.values()))
        return Cost(macs, ops, params, {name: ModuleCost(*amounts) for name, amounts in groups.items()})

    def calls(self, subnet: Subnet) -> list[Call]:
        """What a subnet computes on one image, in order: blocks and other units, and torch functions between them.

        Raises:
            ConfigError: for a subnet of another space, or a model whose cost is not the sum of its blocks' costs.
        """
        self.space.canonical(subnet)  # refuses other subnets
        program = self._program(self._size(subnet)) if self._divided else None
        if program is None:
            raise ConfigError(f'model: {type(self._shadow.supernet.model).__name__} cannot be divided into blocks, so '
                              'its latency can be measured, but not predicted')
        return program.calls(subnet)

    def _program(self, size: tuple[int, int]) -> Program | None:
        """The forward pass in steps. That of an elastic network is not needed for its cost, so it is made here."""
        if size not in self._programs:
            self._programs[size] = self._elastic_program(size)
        return self._programs[size]

    def _elastic_program(self, size: tuple[int, int]) -> Program | None:
        model: Any = self._shadow.supernet.model
        program, rng = Program(self._shadow, model.elastic.units(model), size), random.Random(0)
        for subnet in [self.space.min(), *(self.space.sample(rng) for _ in range(TRIAL_SUBNETS - 1))]:
            try:
                if program.cost(subnet) != self._looked_up[size](subnet):
                    return None
            except (RuntimeError, ValueError, IndexError, TypeError):  # of a step that is given other shapes
                return None
        return program

    def _as_a_whole(self, subnet: Subnet) -> dict[str, list[int]]:
        """Without a look-up: run the model on shapes alone."""
        shadow = self._shadow
        groups: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])

        def add(macs: int, ops: int) -> None:
            groups[shadow.group][0] += macs
            groups[shadow.group][1] += ops

        image = shadow.image(self._size(subnet))
        if not self._is_elastic:
            with OperationCounter([image], add):
                shadow.run(subnet, image)
        else:  # an elastic network does nothing that the one cut out of it does not
            counter = NeededCounter(lambda: shadow.group)
            with counter:
                outputs = shadow.run(subnet, image, counter.operations.called)
            for group, macs, ops in counter.counted(outputs):
                groups[group][0] += macs
                groups[group][1] += ops
        seen: set[Any] = set()
        for name, child in shadow.supernet.model.named_children() if '' not in shadow.units else ():
            groups[name][2] = shadow.parameters(child, seen)
        groups[''][2] = shadow.parameters(shadow.supernet.model, seen)
        return {name: amounts for name, amounts in groups.items() if any(amounts)}

    def _is_divided(self) -> bool:
        """Whether the cost is the sum of the steps' costs, tried with some subnets."""
        rng = random.Random(0)
        for subnet in [self.space.min(), *(self.space.sample(rng) for _ in range(TRIAL_SUBNETS - 1))]:
            expected = self._as_a_whole(subnet)
            # A unit that depends on more than it says finds another state than when the whole was run.
            self._shadow.supernet.apply(self._shadow.supernet.space.max())
            try:
                found: Any = self._looked_up[self._size(subnet)](subnet)
            except (RuntimeError, ValueError, IndexError, TypeError) as error:
                found = error
            if found != expected:
                warnings.warn(f'the cost of {type(self._shadow.supernet.model).__name__} cannot be divided into the '
                              f'costs of its blocks ({found} instead of {expected}), so each subnet is run as a whole, '
                              'which is slower', stacklevel=3)
                return False
        return True
