"""The costs of many subnets of one space, in numbers."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from terminaltables import AsciiTable

from mmbignas.space import ImageSize
from mmbignas.utils.units import format_macs, format_params

PERCENTILES = (0, 5, 25, 50, 75, 95, 100)
NEAR_PERCENT = (1, 5)


class CostFigures(Protocol):
    """What one subnet costs, such as a :class:`mmbignas.cost.Cost`."""

    @property
    def macs(self) -> int: ...

    @property
    def ops(self) -> int: ...

    @property
    def params(self) -> int: ...


@dataclass(frozen=True)
class CostSample:
    """The costs of subnets drawn from one space, one entry per subnet.

    Args:
        macs: MACs.
        params: numbers of parameters.
        image_sizes: height and width of the images, in pixels.
        space_size: how many subnets the space has.
        drawn: how many were drawn, duplicates and those outside the range included.
        smallest, largest: cost of the smallest and of the largest subnet of the space.
        flops_range: the fewest and the most MACs that were asked for; ``None`` for no limit.
        marks: name -> MACs of networks to compare with, e.g. ``baseline``.
        latencies: predicted latencies in milliseconds; empty where they are not known.
    """

    macs: Sequence[int]
    params: Sequence[int]
    image_sizes: Sequence[ImageSize]
    space_size: int
    drawn: int
    smallest: CostFigures
    largest: CostFigures
    flops_range: tuple[int | None, int | None] = (None, None)
    marks: Mapping[str, int] = field(default_factory=dict)
    latencies: Sequence[float] = ()

    def near(self, macs: int, percent: int) -> int:
        """How many subnets have these MACs, give or take this percentage."""
        return sum(100 * abs(own - macs) <= percent * macs for own in self.macs)

    def percentiles(self) -> dict[str, dict[str, float]]:
        """Cost -> percentage of the subnets -> the value that they do not exceed, interpolated as NumPy does."""
        costs = ('macs', self.macs, None), ('params', self.params, None), ('latency_ms', self.latencies, 4)
        return {name: {str(percent): round(float(np.percentile(values, percent)), digits) for percent in PERCENTILES}
                for name, values, digits in costs if len(values)}

    def summary(self) -> dict[str, Any]:
        """Everything in numbers, for a JSON file."""
        kept = len(self.macs)
        marks: dict[str, dict[str, float]] = {}
        for name, macs in self.marks.items():
            marks[name] = dict(macs=macs)
            for percent in NEAR_PERCENT:
                near = self.near(macs, percent)
                marks[name].update({f'within_{percent}_percent': near, f'share_within_{percent}_percent': near / kept})
        extremes = {name: dict(macs=cost.macs, ops=cost.ops, params=cost.params)
                    for name, cost in (('smallest', self.smallest), ('largest', self.largest))}
        return dict(space_size=self.space_size, drawn=self.drawn, kept=kept, flops_range=list(self.flops_range),
                    **extremes, **self.percentiles(), marks=marks)

    def report(self) -> str:
        """A table for people, and what lies near the marks."""
        percentiles = self.percentiles()
        rows = [['percentile', 'MACs', 'parameters'],
                ['smallest of the space', format_macs(self.smallest.macs), format_params(self.smallest.params)]]
        rows += [[f'{percent} %', format_macs(int(macs)), format_params(int(params))] for percent, macs, params in zip(
            PERCENTILES, percentiles['macs'].values(), percentiles['params'].values())]
        rows += [['largest of the space', format_macs(self.largest.macs), format_params(self.largest.params)]]
        if self.latencies:
            column = ['latency', '', *(f'{value:.2f} ms' for value in percentiles['latency_ms'].values()), '']
            rows = [[*row, value] for row, value in zip(rows, column)]
        kept = len(self.macs)
        lines = [f'{kept} subnets in {self.drawn} draws; the space has {self.space_size}', AsciiTable(rows).table]
        for name, macs in self.marks.items():
            near = ', '.join(f'{self.near(macs, percent)} ({self.near(macs, percent) / kept:.2%}) within {percent} %'
                             for percent in NEAR_PERCENT)
            lines.append(f'{name}, {format_macs(macs)}: {near}')
        return '\n'.join(lines)
