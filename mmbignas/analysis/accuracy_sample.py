"""How good the evaluated subnets of one space are, and which of them are worth a look."""
from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from terminaltables import AsciiTable

from mmbignas.space import IMAGE_SIZE, ImageSize, json_number
from mmbignas.utils.files import replacing
from mmbignas.utils.metric_values import format_metric, metric_value
from mmbignas.utils.units import format_macs, format_params

COST_NAMES = {'macs': 'MACs', 'params': 'parameters', 'latency_ms': 'latency'}
MAX_FRONT_ROWS = 15  # of a report


@dataclass(frozen=True)
class EvaluatedSubnet:
    """One subnet, its costs and its metrics.

    Args:
        number: its number in the space.
        settings: module path -> element -> values, as :meth:`Subnet.to_dict` gives them.
        image_size: height and width of the images, in pixels.
        macs: MACs.
        params: number of parameters.
        latency_ms: predicted latency in milliseconds; ``None`` where it is not known.
        metrics: name -> value; empty where nothing was detected, ``None`` for what is no number.
    """

    number: int
    settings: Mapping[str, Any]
    image_size: ImageSize
    macs: int
    params: int
    latency_ms: float | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_line(cls, line: Mapping[str, Any]) -> EvaluatedSubnet:
        """From a line of a ledger: a dict with these names, except that the settings are ``subnet_settings``."""
        height, width = line['image_size']
        return cls(int(line['number']), line['subnet_settings'], (height, width), line['macs'], line['params'],
                   line.get('latency_ms'), line['metrics'])

    def metric(self, name: str | None) -> float:
        """A metric; 0 where it is missing, as nothing was detected, NaN where there is no such number."""
        return metric_value(self.metrics, name)


@dataclass(frozen=True)
class AccuracySample:
    """Evaluated subnets of one space. One whose metric is no number is nowhere the best, nor on a front.

    Args:
        subnets: the subnets.
        metric1: name of the metric that subnets are compared by, the more the better; ``None`` if no subnet has
            one because nothing was detected: then all are worth 0.
        metric2: name of another metric to show.
        marks: name -> MACs of networks to compare with, e.g. ``baseline``.
        flops_range: the fewest and the most MACs that were asked for; ``None`` for no limit.
        space_size: how many subnets the space has.
    """

    subnets: Sequence[EvaluatedSubnet]
    metric1: str | None
    metric2: str | None
    marks: Mapping[str, int]
    flops_range: tuple[int | None, int | None]
    space_size: int

    def costs(self) -> list[str]:
        """The costs that subnets can be compared by; latency if it is known for at least one."""
        return [name for name in COST_NAMES if name != 'latency_ms' or any(own.latency_ms is not None
                                                                      for own in self.subnets)]

    def image_sizes(self) -> list[ImageSize]:
        """The image sizes of the subnets, ascending by area."""
        return sorted({own.image_size for own in self.subnets}, key=lambda size: (size[0] * size[1], size))

    def of_size(self, image_size: ImageSize) -> AccuracySample:
        """The same with only the subnets of one image size."""
        return replace(self, subnets=[own for own in self.subnets if own.image_size == image_size])

    def best(self) -> EvaluatedSubnet | None:
        """The subnet with the best ``metric1`` and, among equals, the fewest MACs; ``None`` without subnets."""
        return next(iter(self._best_first(self.subnets)), None)

    def near(self, macs: int) -> list[EvaluatedSubnet]:
        """The subnets within 1 % of these MACs: the best by ``metric1`` first, among equals the one with fewer MACs."""
        return self._best_first(own for own in self.subnets if 100 * abs(own.macs - macs) <= macs)

    def best_near(self, macs: int) -> list[EvaluatedSubnet]:
        """The best ten subnets of :meth:`near`, best first."""
        return self.near(macs)[:10]

    def nearest(self, macs: int) -> EvaluatedSubnet | None:
        """The subnet whose MACs are nearest to these and, among equals, the best; ``None`` without subnets."""
        return min(self._best_first(self.subnets), key=lambda own: abs(own.macs - macs), default=None)

    def front(self, cost: str, metric: str | None = None) -> list[EvaluatedSubnet]:
        """The subnets that no other beats, by ascending cost and so by ascending metric.

        Args:
            cost: ``macs``, ``params`` or ``latency_ms``. Subnets of unknown latency are left out of the latter.
            metric: the metric; ``None`` for ``metric1``.
        """
        metric = metric or self.metric1
        known = [own for own in self.subnets
                 if getattr(own, cost) is not None and not math.isnan(own.metric(metric))]
        places = pareto_front([getattr(own, cost) for own in known], [own.metric(metric) for own in known])
        return [known[place] for place in places]

    def _best_first(self, subnets: Iterable[EvaluatedSubnet]) -> list[EvaluatedSubnet]:
        ranked = [own for own in subnets if not math.isnan(own.metric(self.metric1))]
        return sorted(ranked, key=lambda own: (-own.metric(self.metric1), own.macs, own.number))

    def summary(self) -> dict[str, Any]:
        """Everything in numbers, for a JSON file; where there are several image sizes, also for each of them."""
        sizes = self.image_sizes()
        by_size = [dict(image_size=list(size), **self.of_size(size)._results()) for size in sizes]
        return dict(space_size=json_number(self.space_size), metric1=self.metric1, metric2=self.metric2,
                    flops_range=list(self.flops_range), **self._results(),
                    **(dict(image_sizes=by_size) if len(sizes) > 1 else {}))

    def _results(self) -> dict[str, Any]:
        marks = {}
        for name, macs in self.marks.items():
            near = self.near(macs)
            marks[name] = dict(macs=macs, within_1_percent=len(near), best=[_entry(own) for own in near[:10]],
                               nearest=_entry(self.nearest(macs)))
        fronts = {cost: [_entry(own) for own in self.front(cost)] for cost in self.costs()}
        return dict(evaluated=len(self.subnets), best=_entry(self.best()), marks=marks, fronts=fronts)

    def report(self) -> str:
        """Tables for people: the best near each mark, the front, and what each image size reaches."""
        metric = f'metric: {self.metric1}' if self.metric1 else 'no metrics: nothing was detected by any of them'
        lines = [f'{len(self.subnets)} subnets of {self.space_size} evaluated; {metric}']
        best = self.best()
        if best is None:
            return lines[0]
        lines.append(f'best: {self._describe(best)}')
        for name, macs in self.marks.items():
            lines += self._report_mark(name, macs)
        front = self.front('macs')
        rows = _spread(front, MAX_FRONT_ROWS)
        others = ', '.join(f'{len(self.front(cost))} by {COST_NAMES[cost]}' for cost in self.costs()[1:])
        some = '' if len(rows) == len(front) else f', {len(rows)} of them'
        lines += [f'Pareto front: {_count(front)} by MACs ({others}){some}:',
                  self._table([[own] for own in rows])]
        if len(self.image_sizes()) > 1:
            lines += ['by image size:', self._size_table()]
        return '\n'.join(lines)

    def _report_mark(self, name: str, macs: int) -> list[str]:
        head, near = f'{name}, {format_macs(macs)}', self.near(macs)
        if not near:
            nearest = self.nearest(macs)
            assert nearest is not None  # of a sample with subnets
            return [f'{head}: no subnet within 1 %; the nearest is {self._describe(nearest)}, '
                    f'{_distance(nearest, macs)}']
        which = 'the best 10 of them' if len(near) > 10 else 'best first'
        return [f'{head}: {_count(near)} within 1 %, {which}:',
                self._table([[own, _distance(own, macs)] for own in near[:10]], f'from {name}')]

    def _describe(self, subnet: EvaluatedSubnet) -> str:
        metric = f', {self.metric1} {format_metric(subnet.metric(self.metric1), 4)}' if self.metric1 else ''
        return f'subnet {subnet.number}, {format_macs(subnet.macs)}{metric}'

    def _table(self, rows: Sequence[Sequence[Any]], *more: str) -> str:
        """A table with one row per subnet, which comes first in each row, and further columns."""
        columns = [('subnet', lambda own: str(own.number)), ('MACs', lambda own: format_macs(own.macs)),
                   ('parameters', lambda own: format_params(own.params))]
        if 'latency_ms' in self.costs():
            columns.append(('latency', lambda own: '-' if own.latency_ms is None else f'{own.latency_ms:.2f} ms'))
        if len(self.image_sizes()) > 1:
            columns.append(('image size', lambda own: format_size(own.image_size)))
        for name in filter(None, (self.metric1, self.metric2)):
            columns.append((name, partial(_metric_cell, name)))
        return AsciiTable([[title for title, _ in columns] + list(more),
                           *[[cell(own) for _, cell in columns] + rest for own, *rest in rows]]).table

    def _size_table(self) -> str:
        """A table with one row per image size."""
        rows = [['image size', 'subnets', 'on its front', 'on the front of all', 'best',
                 *(f'best near {name}' for name in self.marks)]]
        on_front = Counter(own.image_size for own in self.front('macs'))
        for size in self.image_sizes():
            own = self.of_size(size)
            best = [own.best(), *[next(iter(own.near(macs)), None) for macs in self.marks.values()]]
            rows.append([format_size(size), str(len(own.subnets)), str(len(own.front('macs'))), str(on_front[size]),
                         *('none' if one is None else f'subnet {one.number}: {_metric_cell(self.metric1, one)}'
                           for one in best)])
        return AsciiTable(rows).table

    def write_csv(self, path: str | Path) -> None:
        """Write a table with one row per subnet: its costs, all its metrics as they are, and its settings.

        ``pareto`` is 1 for the subnets on the front of MACs and ``metric1``, ``best_near_<mark>`` the place, from 1, of
        the best ten within 1 % of a mark. A metric that a subnet lacks is an empty cell. The file appears when it is
        complete.
        """
        front = {id(own) for own in self.front('macs')}
        places = {f'best_near_{name}': {id(own): place for place, own in enumerate(self.best_near(macs), 1)}
                  for name, macs in self.marks.items()}
        rows = []
        for own in self.subnets:
            costs = {cost: getattr(own, cost) for cost in self.costs()}
            rows.append({'number': own.number, **costs, 'image_size': ' '.join(map(str, own.image_size)),
                         'pareto': int(id(own) in front), **{name: near.get(id(own)) for name, near in places.items()},
                         **own.metrics, **_flat(own.settings)})
        # The metrics of one subnet may be missing in another.
        metrics = dict.fromkeys(name for own in self.subnets for name in own.metrics)
        settings = dict.fromkeys(name for own in self.subnets for name in _flat(own.settings))
        names = ['number', *self.costs(), 'image_size', 'pareto', *places, *metrics, *settings]
        with replacing(path) as aside, aside.open('w', encoding='utf-8', newline='') as file:
            writer = csv.DictWriter(file, names, lineterminator='\n')
            writer.writeheader()
            writer.writerows(rows)


def pareto_front(costs: Sequence[float], values: Sequence[float]) -> list[int]:
    """The points that no other beats by being at most as expensive and at least as good, and strictly better in one.

    Args:
        costs: the less, the better.
        values: as many; the more, the better.

    Returns:
        list: their places, by ascending cost and so by ascending value. Among equal points, the first counts.

    Raises:
        ValueError: for different numbers of costs and values, or one that is not a number.
    """
    points = list(zip(costs, values, strict=True))
    if any(own != own for point in points for own in point):
        raise ValueError('costs and values have to be numbers, not NaN')
    front: list[int] = []
    # The sort keeps the order of equal points.
    for place in sorted(range(len(points)), key=lambda place: (points[place][0], -points[place][1])):
        if not front or points[place][1] > points[front[-1]][1]:
            front.append(place)
    return front


def _metric_cell(name: str | None, subnet: EvaluatedSubnet) -> str:
    return format_metric(subnet.metric(name), 4)


def format_size(image_size: ImageSize) -> str:
    """Height and width of an image for people, e.g. ``256 x 320``."""
    return '{} x {}'.format(*image_size)


def _entry(subnet: EvaluatedSubnet | None) -> dict[str, Any] | None:
    """A subnet in a summary, under the names of a ledger."""
    if subnet is None:
        return None
    return dict(number=json_number(subnet.number), image_size=list(subnet.image_size), macs=subnet.macs,
                params=subnet.params, latency_ms=subnet.latency_ms, metrics=dict(subnet.metrics),
                subnet_settings=dict(subnet.settings))


def _flat(settings: Mapping[str, Any]) -> dict[str, str]:
    """``backbone.depth`` -> ``1 2 2``, and so on."""
    return {f'{path}.{name}': ' '.join(map(str, values)) for path, elements in settings.items() if path != IMAGE_SIZE
            for name, values in elements.items()}


def _spread(subnets: Sequence[EvaluatedSubnet], count: int) -> list[EvaluatedSubnet]:
    """At most this many of them, evenly spread, with the first and the last."""
    if len(subnets) <= count:
        return list(subnets)
    return [subnets[round(row * (len(subnets) - 1) / (count - 1))] for row in range(count)]


def _count(subnets: Sequence[EvaluatedSubnet]) -> str:
    return '1 subnet' if len(subnets) == 1 else f'{len(subnets)} subnets'


def _distance(subnet: EvaluatedSubnet, macs: int) -> str:
    return f'{100 * (subnet.macs - macs) / macs:+.2f} %'
