"""The eight sampling strategies, and the sets of values that they draw from.

A strategy turns the choices of an element (and, for elements other than ``depth``, the depth that was drawn) into the
set of its admissible values, a :class:`Variants`. Drawing, listing and checking happen on that set: a draw is uniform
over it, as if values were drawn again until an ordering rule holds, but without drawing again.
"""
from __future__ import annotations

import random
from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

from mmbignas.errors import ConfigError
from mmbignas.utils.rules import check_keys, integer, must_be, number, one_of, shown

Value = int | float
Values = tuple[Value, ...]


class Variants(ABC):
    """The admissible values of one element, as a set that is never enumerated unless it is tiny."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many there are."""

    @abstractmethod
    def __getitem__(self, index: int) -> Values:
        """The variant with number ``index``, ``0 <= index < size``, in lexicographic order."""

    @abstractmethod
    def index(self, values: Values) -> int:
        """The number of one of the variants."""

    @abstractmethod
    def explain(self, values: Values, unit: str = 'stage') -> str | None:
        """Why ``values`` is not among the variants; ``None`` if it is.

        One clause, "must be ..., got ...", that names the position (a ``unit``) and what is allowed there.
        """

    @abstractmethod
    def middle(self) -> Values:
        """The variant in the middle of the choices."""

    def sample(self, rng: random.Random) -> Values:
        """Draw uniformly."""
        return self[rng.randrange(self.size)]


class OneIndex(Variants):
    """One index for all positions; a position with a single choice keeps it."""

    def __init__(self, choices: Sequence[Values]) -> None:
        count = max(len(stage) for stage in choices)
        self.rows = [tuple(stage[min(i, len(stage) - 1)] for stage in choices) for i in range(count)]

    @property
    def size(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Values:
        return self.rows[index]

    def index(self, values: Values) -> int:
        return self.rows.index(values)

    def explain(self, values: Values, unit: str = 'stage') -> str | None:
        if values in self.rows:
            return None
        return f'must be one of {shown([list(row) for row in self.rows])}, got {shown(list(values))}'

    def middle(self) -> Values:
        return self.rows[self.size // 2]


class Chain(Variants):
    """One value per position, where a rule may bind a value to the one before it.

    Args:
        choices: ascending choices of each position.
        slopes: per position, ``None`` (free) or ``(low, high)``: the value must lie between ``low`` and ``high``
            times the value before.
    """

    def __init__(self, choices: Sequence[Values], slopes: Sequence[tuple[float, float] | None] | None = None) -> None:
        self.choices = choices
        self.slopes = slopes if slopes is not None else [None] * len(choices)

    def _span(self, position: int, previous: Value | None) -> tuple[int, int]:
        """The choices that may stand at ``position`` after ``previous``, as a range of their indices."""
        stage, rule = self.choices[position], self.slopes[position]
        if rule is None or previous is None:
            return 0, len(stage)
        return bisect_left(stage, previous * rule[0]), bisect_right(stage, previous * rule[1])

    def options(self, position: int, previous: Value | None) -> Sequence[Value]:
        """The choices that may stand at ``position`` after ``previous`` (``None`` at the first position)."""
        low, high = self._span(position, previous)
        return self.choices[position][low:high]

    @cached_property
    def _sums(self) -> list[list[int]]:
        """Per position, before each choice and after the last: the number of ways to go on from the smaller choices."""
        sums: list[list[int]] = []
        for position in reversed(range(len(self.choices))):
            ways = [1] * len(self.choices[position])
            if sums:
                spans = (self._span(position + 1, value) for value in self.choices[position])
                ways = [sums[-1][high] - sums[-1][low] for low, high in spans]
            sums.append([0, *accumulate(ways)])
        return sums[::-1]

    @cached_property
    def size(self) -> int:
        return self._sums[0][-1]

    def __getitem__(self, index: int) -> Values:
        values: list[Value] = []
        previous: Value | None = None
        for position, sums in enumerate(self._sums):
            index += sums[self._span(position, previous)[0]]
            choice = bisect_right(sums, index) - 1
            index -= sums[choice]
            previous = self.choices[position][choice]
            values.append(previous)
        return tuple(values)

    def index(self, values: Values) -> int:
        number = 0
        previous: Value | None = None
        for position, value in enumerate(values):
            sums = self._sums[position]
            number += sums[self.choices[position].index(value)] - sums[self._span(position, previous)[0]]
            previous = value
        return number

    @cached_property
    def _free(self) -> bool:
        """Whether no rule binds a value to another."""
        return all(rule is None for rule in self.slopes)

    def sample(self, rng: random.Random) -> Values:
        if not self._free:
            return super().sample(rng)
        choice = rng.choice
        return tuple([choice(stage) if len(stage) > 1 else stage[0] for stage in self.choices])

    def explain(self, values: Values, unit: str = 'stage') -> str | None:
        for position, (value, stage) in enumerate(zip(values, self.choices)):
            if value not in stage:
                return f'must be one of {shown(list(stage))} in {unit} {position}, got {shown(value)}'
            if position and value not in self.options(position, values[position - 1]):
                low, high = self.slopes[position] or (0, 0)
                return (f'must be {low:g} to {high:g} times the value before it, {values[position - 1]}, in {unit} '
                        f'{position} by its ordering rule, got {value}')
        return None

    def middle(self) -> Values:
        values: list[Value] = []
        for position, (stage, sums) in enumerate(zip(self.choices, self._sums)):
            target = stage[len(stage) // 2]
            low, high = self._span(position, values[-1] if values else None)
            admissible = [stage[index] for index in range(low, high) if sums[index + 1] > sums[index]]
            values.append(min(admissible, key=lambda value: abs(value - target)))
        return tuple(values)


@dataclass(frozen=True)
class Strategy:
    """A sampling strategy of the reference, by name.

    Args:
        name: one of :data:`STRATEGIES`.
        min_slope, max_slope: bounds of an ordered value as multiples of the stage before it.
        start_stage, end_stage: the ordering binds stages ``start_stage + 1 .. end_stage`` (inclusive; ``None`` is the
            last) to the stage before them.
    """

    name: str
    min_slope: float = 1
    max_slope: float = 1000
    start_stage: int = 0
    end_stage: int | None = None

    @property
    def per_block(self) -> bool:
        """Whether it draws one value per block."""
        return self.name.endswith('block_wise')

    @property
    def follows_depth(self) -> bool:
        """Whether the set of values of an element other than the depth changes with the depth."""
        return self.per_block or self.name == 'stage_wise_depth'

    def check(self, element: str, choices: Sequence[Values], key: str) -> None:
        """Refuse choices that the strategy cannot draw from.

        Raises:
            ConfigError: naming key, strategy and what is wrong.
        """
        where, stages = f'{key}.sample_strategy', [list(stage) for stage in choices]
        if self.name == 'ordered_stage_wise_depth' and element != 'depth':
            raise must_be(where, "another one, such as 'ordered_stage_wise' (this one is for depth only)", self.name)
        if self.name == 'net_wise' and len(set(choices)) > 1:
            raise must_be(f'{key}.space', "the same in every stage for sample_strategy 'net_wise'", stages)
        if self.name == 'net_wise_index' and len({len(stage) for stage in choices} - {1}) > 1:
            raise must_be(f'{key}.space', "lists of one length, or of one choice, for sample_strategy 'net_wise_index'",
                          stages)
        last = len(choices) - 1
        end = last if self.end_stage is None else self.end_stage
        if not 0 <= self.start_stage <= end <= last:
            raise ConfigError(f'{where}.kwargs must be 0 <= start_stage <= end_stage <= {last}, got '
                              f'start_stage={self.start_stage}, end_stage={self.end_stage}')
        if 'ordered' in self.name:
            for label, index in (('largest', -1), ('smallest', 0)):
                extreme = tuple(stage[index] for stage in choices)
                problem = Chain(choices, self._slopes(len(choices))).explain(extreme)
                if problem:
                    raise ConfigError(f'{key}: {self.name!r} cannot draw the {label} subnet {list(extreme)}: its value '
                                      f'{problem}')

    def _slopes(self, count: int) -> list[tuple[float, float] | None]:
        end = count - 1 if self.end_stage is None else self.end_stage
        rule = (self.min_slope, float('inf') if self.per_block else self.max_slope)
        return [rule if self.start_stage < stage <= end else None for stage in range(count)]

    def variants(self, choices: Sequence[Values], depth: Sequence[Value] | None = None,
                 depth_choices: Sequence[Values] | None = None) -> Variants:
        """The set of values that the strategy draws from.

        Args:
            choices: ascending choices of each stage.
            depth: the depth of each stage; ``None`` when the element is the depth itself.
            depth_choices: the choices that depth was drawn from.
        """
        if self.name.startswith('net_wise'):
            return OneIndex(choices)
        if self.per_block:
            assert depth is not None
            blocks = [choices[stage] for stage, count in enumerate(depth) for _ in range(int(count))]
            ordered = self.name == 'ordered_block_wise'
            return Chain(blocks, [None] + [(1, float('inf'))] * (len(blocks) - 1) if ordered else None)
        if self.name.startswith('ordered'):
            return Chain(choices, self._slopes(len(choices)))
        if self.name == 'stage_wise_depth' and depth is not None and depth_choices is not None:
            return Chain([(stage[depths.index(count)],) if len(stage) == len(depths) else stage
                          for stage, depths, count in zip(choices, depth_choices, depth)])
        return Chain(choices)


STRATEGIES = ('net_wise', 'net_wise_index', 'stage_wise', 'ordered_stage_wise', 'stage_wise_depth',
              'ordered_stage_wise_depth', 'block_wise', 'ordered_block_wise')
STAGE_ORDERED = ('ordered_stage_wise', 'ordered_stage_wise_depth')
ORDER_KWARGS = dict(min_slope=number(), max_slope=number(), start_stage=integer(0), end_stage=integer(0).or_none())


def parse_strategy(config: Any, key: str) -> Strategy:
    """Read ``sample_strategy``: a name, or ``dict(name=..., kwargs=...)``.

    Raises:
        ConfigError: for an unknown name or keyword, naming those that exist.
    """
    kwargs: Any = {}
    name = config
    if isinstance(config, Mapping):
        check_keys(config, key, ('name', 'kwargs'), ('name',))
        name, kwargs = config['name'], config.get('kwargs') or {}
    one_of(STRATEGIES).check(name, key)
    check_keys(kwargs, f'{key}.kwargs', ORDER_KWARGS if name in STAGE_ORDERED else ())
    for label, value in kwargs.items():
        ORDER_KWARGS[label].check(value, f'{key}.kwargs.{label}')
    return Strategy(name, **kwargs)
