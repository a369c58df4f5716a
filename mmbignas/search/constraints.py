"""Limits on what a subnet may cost, and subnets that keep them."""
from __future__ import annotations

import math
import random
from collections.abc import Callable, Container, Mapping, Sequence
from functools import cached_property
from typing import Any

from mmbignas.cost.sampling import climb
from mmbignas.errors import ConfigError
from mmbignas.space import Genome, SearchSpace, Subnet
from mmbignas.utils.rules import Rule, check_keys, must_be, number, shown
from mmbignas.utils.units import parse_amount

COSTS = ('macs', 'params', 'latency_ms')
WALKED = 10_000  # in spaces of at most this size, the remaining subnets are found by looking at all
MAX_DRAWS = 2000
MAX_CLIMBS = 10
MILLISECONDS = Rule(number(above=0).holds, 'a number of milliseconds > 0')

Costs = Mapping[str, float]


class Constraints:
    """Hard limits, which are checked on the cost of a subnet, before anything is evaluated.

    Args:
        limits: any of ``macs``, ``params`` and ``latency_ms`` -> the most that is allowed, or ``[low, high]``, both
            inclusive; either may be ``None``. MACs and parameters as numbers or such as ``'20G'``, latency in
            milliseconds.
        space: the search space.
        costs: what a subnet costs: ``macs``, ``params`` and, where it is known, ``latency_ms``.

    Raises:
        ConfigError: for an invalid limit, a limit on an unknown cost, or one that no subnet keeps.

    Attributes:
        limits: cost -> lowest and highest value, as numbers.
    """

    def __init__(self, limits: Mapping[str, Any] | None, space: SearchSpace, costs: Callable[[Subnet], Costs]) -> None:
        self.space, self.costs = space, costs
        known = [name for name in COSTS if costs(space.min()).get(name) is not None]
        self.limits: dict[str, tuple[float, float]] = {}
        for name, value in check_keys(limits or {}, 'constraints', COSTS).items():
            if name not in known:
                raise must_be(f'constraints.{name}', f'left out, as only {", ".join(known)} are known here, and '
                              'latency_ms with a latency table', value)
            self.limits[name] = _read_limit(value, f'constraints.{name}', name == 'latency_ms')
            self._check_reach(name, value)
        if self.limits and self.find(random.Random(0), ()) is None:
            raise ConfigError(f'constraints: no subnet was found that meets {shown(limits)}; give wider limits')

    def _check_reach(self, name: str, value: Any) -> None:
        low, high = self.limits[name]
        least = self.costs(climb(self.space, self.space.min(), lambda subnet: -self.costs(subnet)[name]))[name]
        most = self.costs(climb(self.space, self.space.max(), lambda subnet: self.costs(subnet)[name]))[name]
        if high < least or low > most:
            raise must_be(f'constraints.{name}', f'a limit that the subnets can meet, which have {least:,} to {most:,}',
                          value)

    def excess(self, costs: Costs) -> float:
        """By how much costs miss the limits, relative to them and summed up; 0 where they are kept."""
        return sum(max(low - costs[name], 0) / low if costs[name] < low else max(costs[name] - high, 0) / high
                   for name, (low, high) in self.limits.items())

    def allow(self, subnet: Subnet) -> bool:
        """Whether a subnet keeps the limits."""
        return not self.limits or self.excess(self.costs(subnet)) == 0

    @cached_property
    def _all(self) -> list[int]:
        """The numbers of all subnets that keep the limits, of a small space."""
        return [number for number in range(self.space.size) if self.allow(self.space[number])]

    def find(self, rng: random.Random, taken: Container[int]) -> Subnet | None:
        """Draw a subnet that keeps the limits.

        In a small space all of them have the same probability, and none is missed. In others the first suitable draw
        counts; where the limits are too narrow for that, a walk leads from a drawn subnet towards them.

        Args:
            rng: what is drawn from.
            taken: numbers of the subnets that are excluded.

        Returns:
            Subnet: ``None`` when nothing is left or, in a large space, nothing was found.
        """
        if self.space.size <= WALKED:
            left = [number for number in self._all if number not in taken]
            return self.space[rng.choice(left)] if left else None
        for _ in range(MAX_DRAWS):
            subnet = self.space.sample_uniform(rng)
            if self.allow(subnet) and self.space.index(subnet) not in taken:
                return subnet
        for _ in range(MAX_CLIMBS if self.limits else 0):
            subnet = self._approach(self.space.sample(rng), rng)
            if self.allow(subnet) and self.space.index(subnet) not in taken:
                return subnet
        return None

    def _approach(self, subnet: Subnet, rng: random.Random) -> Subnet:
        """Go from neighbour to neighbour towards the limits, to any that is nearer than the last."""
        genome = Genome(self.space)
        while (excess := self.excess(self.costs(subnet))) > 0:
            nearer = [neighbour for neighbour in genome.neighbours(subnet)
                      if self.excess(self.costs(neighbour)) < excess]
            if not nearer:
                break
            subnet = rng.choice(nearer)
        return subnet


def _read_limit(value: Any, key: str, milliseconds: bool) -> tuple[float, float]:
    """The lowest and the highest value that is allowed."""
    several = isinstance(value, Sequence) and not isinstance(value, str)
    if several and len(value) != 2:
        raise must_be(key, 'the most, or [low, high]', value)
    read = MILLISECONDS.check if milliseconds else parse_amount
    ends = [None if end is None else read(end, key) for end in (value if several else [None, value])]
    low, high = 0. if ends[0] is None else ends[0], math.inf if ends[1] is None else ends[1]
    if low > high:
        raise must_be(key, '[low, high] with low <= high', value)
    return low, high
