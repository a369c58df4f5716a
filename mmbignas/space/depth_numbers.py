"""Numbers for the depths of a module, weighted by what can be drawn for each: exact, and nothing is enumerated.

Given the depth, the elements of a module are drawn independently of each other. All except the block-wise ones are
drawn from sets of the same size for every depth, so a depth counts once for each way to draw the block-wise elements.
"""
from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property

from mmbignas.space.element import Element
from mmbignas.space.strategies import Chain, OneIndex, Value, Values, Variants

State = tuple[Value, ...]  # the last value of each ordered block-wise element
Ways = dict[State, int]


class DepthNumbers(ABC):
    """A range of numbers from 0, cut into one interval per depth; the depths are in lexicographic order."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many numbers there are."""

    @abstractmethod
    def locate(self, number: int) -> tuple[Values, int]:
        """The depth whose interval holds ``number``, and the place in the interval."""

    @abstractmethod
    def start(self, depth: Values) -> int:
        """The first number of a depth's interval."""


class PlainDepths(DepthNumbers):
    """Without block-wise elements every depth counts once."""

    def __init__(self, depths: Variants) -> None:
        self.depths = depths

    @property
    def size(self) -> int:
        return self.depths.size

    def locate(self, number: int) -> tuple[Values, int]:
        return self.depths[number], 0

    def start(self, depth: Values) -> int:
        return self.depths.index(depth)


class ListedDepths(DepthNumbers):
    """The handful of depths that share one index."""

    def __init__(self, depths: OneIndex, block_wise: Sequence[Element]) -> None:
        self.depths = depths
        sizes = [math.prod(element.variants(depth).size for element in block_wise) for depth in depths.rows]
        self.starts = [0, *itertools.accumulate(sizes)]

    @property
    def size(self) -> int:
        return self.starts[-1]

    def locate(self, number: int) -> tuple[Values, int]:
        row = bisect_right(self.starts, number) - 1
        return self.depths[row], number - self.starts[row]

    def start(self, depth: Values) -> int:
        return self.starts[self.depths.index(depth)]


class ChainedDepths(DepthNumbers):
    """Depths drawn stage by stage: dynamic programming over the stages.

    The stages from one on depend on those before only through the depth of the last one, where an ordering rule binds
    the next stage to it, and through the state: the last value of each ordered block-wise element.
    """

    def __init__(self, depths: Chain, block_wise: Sequence[Element]) -> None:
        self.depths = depths
        self.ordered = [element.choices for element in block_wise if _is_ordered(element)]
        free = [element.choices for element in block_wise if not _is_ordered(element)]
        self.free_ways = [math.prod(len(choices[stage]) for choices in free) for stage in range(len(depths.choices))]
        self.begin: State = (0,) * len(self.ordered)  # less than any value

    def _values(self, stage: int) -> list[Values]:
        """The last values that each ordered element may have after a stage; -1 is the beginning."""
        return [choices[stage] if stage >= 0 else self.begin[:1] for choices in self.ordered]

    @cached_property
    def _ways(self) -> list[dict[Value, Ways]]:
        """Per stage and its depth: from each state before it, in how many ways the stages from it on can be drawn."""
        table: list[dict[Value, Ways]] = []
        for stage in reversed(range(len(self.depths.choices))):
            ways = {}
            for depth in self.depths.choices[stage]:
                rest = dict.fromkeys(itertools.product(*self._values(stage)), 1)
                if table:
                    following = [table[-1][after] for after in self.depths.options(stage + 1, depth)]
                    rest = {state: sum(own[state] for own in following) for state in rest}
                for block in reversed(range(int(depth))):
                    rest = _step(rest, self._values(stage if block else stage - 1), self.free_ways[stage], back=True)
                ways[depth] = rest
            table.append(ways)
        return table[::-1]

    def _counts(self, stage: int, previous: Value | None, reached: Ways) -> Iterator[tuple[Value, int]]:
        """Each depth that a stage may have, and how many numbers it stands for.

        Args:
            stage: the stage.
            previous: the depth of the stage before it.
            reached: in how many ways the stages before it lead to each state.
        """
        for depth in self.depths.options(stage, previous):
            ways = self._ways[stage][depth]
            yield depth, sum(count * ways[state] for state, count in reached.items())

    def _after(self, stage: int, depth: Value, reached: Ways) -> Ways:
        """In how many ways the stages up to one of this depth lead to each state."""
        for _ in range(int(depth)):
            reached = _step(reached, self._values(stage), self.free_ways[stage])
        return reached

    @cached_property
    def size(self) -> int:
        return sum(ways for _, ways in self._counts(0, None, {self.begin: 1}))

    def locate(self, number: int) -> tuple[Values, int]:
        depths: list[Value] = []
        reached: Ways = {self.begin: 1}
        for stage in range(len(self.depths.choices)):
            for depth, ways in self._counts(stage, depths[-1] if depths else None, reached):
                if number < ways:
                    depths.append(depth)
                    break
                number -= ways
            reached = self._after(stage, depths[-1], reached)
        return tuple(depths), number

    def start(self, depth: Values) -> int:
        number = 0
        previous: Value | None = None
        reached: Ways = {self.begin: 1}
        for stage, chosen in enumerate(depth):
            number += sum(ways for smaller, ways in self._counts(stage, previous, reached) if smaller < chosen)
            previous, reached = chosen, self._after(stage, chosen, reached)
        return number


def _is_ordered(element: Element) -> bool:
    return element.strategy is not None and element.strategy.name == 'ordered_block_wise'


def _step(ways: Ways, values: Sequence[Values], factor: int, *, back: bool = False) -> Ways:
    """One block on: every ordered element takes each of its values that is not less than its last one.

    Args:
        ways: in how many ways each state before the block is reached; going back, in how many ways one can go on from
            each state after it.
        values: of each ordered element, in the block; going back, before it.
        factor: ways to draw the other elements of the block.
        back: go one block back.
    """
    for axis, choices in enumerate(values):
        moved: Ways = {}
        for state, count in ways.items():
            for value in choices:
                if value == state[axis] or (value < state[axis]) == back:
                    after = (*state[:axis], value, *state[axis + 1:])
                    moved[after] = moved.get(after, 0) + count
        ways = moved
    return {state: count * factor for state, count in ways.items()}


def count_depths(depths: Variants, block_wise: Sequence[Element]) -> DepthNumbers:
    """Number the depths of a module; ``block_wise`` are its elements that have one value per block."""
    if not block_wise:
        return PlainDepths(depths)
    if isinstance(depths, OneIndex):
        return ListedDepths(depths, block_wise)
    assert isinstance(depths, Chain)
    return ChainedDepths(depths, block_wise)
