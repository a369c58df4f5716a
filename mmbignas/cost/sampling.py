"""Distinct subnets of a space with their costs, drawn one at a time."""
from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from mmbignas.cost.cost_model import Cost, CostModel
from mmbignas.errors import ConfigError
from mmbignas.space import Genome, SearchSpace, Subnet
from mmbignas.utils.rules import integer, must_be, one_of
from mmbignas.utils.units import format_macs, parse_range

SAMPLE_MODES = ('random', 'uniform', 'traverse')
MAX_DRAWS_PER_SUBNET = 100
MAX_MISSES = 10_000


class CostedSubnet(NamedTuple):
    """A subnet, its number in the space, and its cost."""

    number: int
    subnet: Subnet
    cost: Cost


class SubnetSampling:
    """Which subnets to draw.

    Args:
        count: how many. If the space has no more, all are walked through, whatever the mode.
        mode: ``random``: drawn by the strategies of the space's elements; ``uniform``: each subnet with the same
            probability; ``traverse``: ``count`` of them evenly spaced in the order of their numbers; those in the
            range are kept.
        flops_range: ``[low, high]`` of the MACs, either end a number, a string such as ``'20G'``, or ``None``; see
            :func:`~mmbignas.utils.units.parse_range`. ``None`` for no limit.

    Raises:
        ConfigError: for settings that are not allowed.

    Attributes:
        low: the fewest MACs, inclusive; ``None`` for no limit.
        high: the most MACs, inclusive; ``None`` for no limit.
    """

    def __init__(self, count: int, mode: str = 'random', flops_range: Any = None) -> None:
        self.count = integer(1).check(count, 'subnet_count')
        self.mode = one_of(SAMPLE_MODES).check(mode, 'subnet_sample_mode')
        self.low, self.high = parse_range(flops_range, 'flops_range')

    def draw(self, cost_model: CostModel, rng: random.Random) -> Draws:
        """Draw from the space of a cost model, see :class:`Draws`; the same state of ``rng`` gives the same subnets."""
        return Draws(self, cost_model, rng)


def climb(space: SearchSpace, start: Subnet, value: Callable[[Subnet], float]) -> Subnet:
    """Go from neighbour to neighbour as long as one has a greater value; return the subnet without a better neighbour.

    This ends at once if the value grows with every element and the start is the largest subnet. MACs, for example, do
    not grow with the number of groups.
    """
    genome, best = Genome(space), value(start)
    while True:
        better = max(genome.neighbours(start), key=value, default=start)
        if value(better) <= best:
            return start
        start, best = better, value(better)


class Draws(Iterator[CostedSubnet]):
    """The subnets of a :class:`SubnetSampling`, each of them once.

    Drawing ends early, with fewer than asked for, after ``MAX_DRAWS_PER_SUBNET`` draws for each subnet asked for (and
    at least ``MAX_MISSES``), or ``MAX_MISSES`` in a row without a new subnet in the range.

    Args:
        sampling: what to draw.
        cost_model: the costs and their space.
        rng: where the randomness comes from.

    Raises:
        ConfigError: at once for a range that lies outside what the space reaches; while iterating, when the draws have
            ended and none lies in the range.

    Attributes:
        drawn: how many were drawn so far, duplicates and those outside the range included.
        kept: how many were returned so far.
        smallest: cost of the subnet with the fewest MACs in the space.
        largest: cost of the subnet with the most.
    """

    def __init__(self, sampling: SubnetSampling, cost_model: CostModel, rng: random.Random) -> None:
        space = cost_model.space
        self.sampling = sampling
        self.cost_model = cost_model
        self.drawn = self.kept = 0
        self.smallest = cost_model(climb(space, space.min(), lambda subnet: -cost_model(subnet).macs))
        self.largest = cost_model(climb(space, space.max(), lambda subnet: cost_model(subnet).macs))
        self._low = 0 if sampling.low is None else sampling.low
        self._high = math.inf if sampling.high is None else sampling.high
        if self.smallest.macs > self._high or self.largest.macs < self._low:
            raise must_be('flops_range', f'a range that overlaps [{self.smallest.macs}, {self.largest.macs}], the MACs '
                          f'from the smallest subnet ({format_macs(self.smallest.macs)}) to the largest '
                          f'({format_macs(self.largest.macs)})', self._range)
        self._subnets = self._generate(rng)

    def __next__(self) -> CostedSubnet:
        return next(self._subnets)

    @property
    def total(self) -> int:
        """How many are returned if nothing is missing."""
        return min(self.sampling.count, self.cost_model.space.size)

    @property
    def _range(self) -> list[int | None]:
        return [self.sampling.low, self.sampling.high]

    def _generate(self, rng: random.Random) -> Iterator[CostedSubnet]:
        space, count = self.cost_model.space, self.sampling.count
        walk = self.sampling.mode == 'traverse' or count >= space.size
        seen: set[int] = set()
        below, above, misses = self.smallest.macs, self.largest.macs, 0
        for subnet in space.traverse(count) if walk else self._random_subnets(rng):
            self.drawn += 1
            misses += 1
            cost = self.cost_model(subnet)
            if cost.macs < self._low:
                below = max(below, cost.macs)
            elif cost.macs > self._high:
                above = min(above, cost.macs)
            elif (number := space.index(subnet)) not in seen:
                seen.add(number)
                self.kept, misses = len(seen), 0
                yield CostedSubnet(number, subnet, cost)
            if self.kept == count or misses == MAX_MISSES and not walk:
                break
        if not seen:
            nearest = [str(macs) for macs in (below, above) if not self._low <= macs <= self._high]
            raise ConfigError(f'flops_range: {self._range} holds none of the {self.drawn} subnets drawn '
                              f'({self.sampling.mode}); the nearest have {" and ".join(nearest)} MACs; give a '
                              'wider range')

    def _random_subnets(self, rng: random.Random) -> Iterator[Subnet]:
        """Random subnets, as many as may be drawn at most."""
        space = self.cost_model.space
        sample = space.sample if self.sampling.mode == 'random' else space.sample_uniform
        for _ in range(max(MAX_DRAWS_PER_SUBNET * self.sampling.count, MAX_MISSES)):
            yield sample(rng)
