"""How well one ranking of subnets agrees with another."""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from terminaltables import AsciiTable

from mmbignas.analysis.accuracy_sample import EvaluatedSubnet
from mmbignas.analysis.figures import COLOURS, DPI, FONT_SIZES, new_figure, save_figure
from mmbignas.dependencies import require
from mmbignas.space import json_number
from mmbignas.utils.units import format_macs, format_params

RESAMPLES = 9999
INTERVAL_PERCENT = 95
MAX_EXACT = 7  # 5,040 permutations of so many subnets
MAX_ELEMENTS = 10**7  # of an array
MAX_DIGITS = 8  # of a number beside a point of a picture
_Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]


def require_scipy() -> Any:
    """The module ``scipy.stats``; without it, raise a DependencyError."""
    return require('scipy.stats', 'a rank correlation', 'mmbignas[search]')


@dataclass(frozen=True)
class Correlation:
    """A rank correlation and how sure it is.

    Args:
        value: -1 to 1; no number where all values of one side are equal.
        p: probability of one at least as strong, in either direction, if the one ranking had nothing to do with the
            other: of all permutations where there are few, else of many.
        low: lower end of the interval in which it lies with 95 percent, by drawing as many subnets again, many times.
        high: upper end of it.
    """

    value: float
    p: float
    low: float
    high: float

    def __str__(self) -> str:
        return f'{self.value:.2f} ({INTERVAL_PERCENT} % interval {self.low:.2f} to {self.high:.2f}, p = {self.p:.2g})'

    def summary(self) -> dict[str, Any]:
        """For a JSON file; ``None`` for what is no number."""
        value, p, low, high = (None if math.isnan(own) else own for own in (self.value, self.p, self.low, self.high))
        return dict(value=value, p=p, interval=[low, high])


def kendall_tau(first: Sequence[float], second: Sequence[float], seed: int = 0) -> Correlation:
    """Kendall's tau-b, which takes account of ties.

    Args:
        first: one value per subnet.
        second: another value of each.
        seed: of the permutations and of what is drawn again.

    Raises:
        DependencyError: when scipy is missing.
    """
    return _correlation(require_scipy().kendalltau, _taus, first, second, seed)


def spearman_rho(first: Sequence[float], second: Sequence[float], seed: int = 0) -> Correlation:
    """Spearman's rho; arguments as for :func:`kendall_tau`."""
    rankdata = require_scipy().rankdata

    def rhos(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        x, y = (own - own.mean(1, keepdims=True) for own in (rankdata(x, axis=1), rankdata(y, axis=1)))
        return (x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1))

    return _correlation(require_scipy().spearmanr, rhos, first, second, seed)


def _correlation(function: Callable[..., Any], statistic: _Statistic, first: Sequence[float], second: Sequence[float],
                 seed: int) -> Correlation:
    x, y = np.asarray(first, float), np.asarray(second, float)
    if len(set(first)) < 2 or len(set(second)) < 2:
        return Correlation(math.nan, math.nan, math.nan, math.nan)
    rng, count = np.random.default_rng(seed), len(x)
    if count <= MAX_EXACT:
        orders = np.array(list(permutations(range(count))))
    else:  # the order that is there counts as one of them
        orders = rng.permuted(np.tile(np.arange(count), (RESAMPLES + 1, 1)), axis=1)
        orders[0] = range(count)
    value = float(function(x, y).statistic)
    chance = _evaluate(statistic, np.broadcast_to(x, orders.shape), y[orders])
    drawn = rng.integers(count, size=(RESAMPLES, count))
    again = _evaluate(statistic, x[drawn], y[drawn])
    tail = (100 - INTERVAL_PERCENT) / 2
    low, high = np.nanpercentile(again, [tail, 100 - tail])  # no number where one subnet was drawn each time
    return Correlation(value, float((abs(chance) >= abs(value) - 1e-9).mean()), float(low), float(high))


def _evaluate(statistic: _Statistic, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A statistic of each row, a part of the rows at a time."""
    step = max(1, MAX_ELEMENTS // x.shape[1]**2)
    with np.errstate(invalid='ignore'):
        return np.concatenate([statistic(x[begin:begin + step], y[begin:begin + step])
                               for begin in range(0, len(x), step)])


def _taus(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of each row."""
    x, y = (np.sign(own[:, :, None] - own[:, None, :]) for own in (x, y))
    return (x * y).sum((1, 2)) / np.sqrt((x * x).sum((1, 2)) * (y * y).sum((1, 2)))


@dataclass(frozen=True)
class RankComparison:
    """Subnets as they are in the supernet, and as they are when each is trained alone.

    Args:
        supernet: the subnets with their metrics in the supernet.
        alone: the same ones with those after a training alone.
        metric: name of the metric.
        seed: of the intervals.
    """

    supernet: Sequence[EvaluatedSubnet]
    alone: Sequence[EvaluatedSubnet]
    metric: str
    seed: int = 0

    @cached_property
    def pairs(self) -> list[tuple[float, float]]:
        """The metric in the supernet and alone, of each subnet."""
        return [(one.metric(self.metric), other.metric(self.metric)) for one, other in zip(
            self.supernet, self.alone, strict=True)]

    @cached_property
    def tau(self) -> Correlation:
        """Kendall's tau of both."""
        first, second = zip(*self.pairs)
        return kendall_tau(first, second, self.seed)

    @cached_property
    def rho(self) -> Correlation:
        """Spearman's rho of both."""
        first, second = zip(*self.pairs)
        return spearman_rho(first, second, self.seed)

    def summary(self) -> dict[str, Any]:
        """Everything in numbers, for a JSON file."""
        subnets = [dict(number=json_number(own.number), macs=own.macs, params=own.params, supernet=pair[0],
                        alone=pair[1]) for own, pair in zip(self.supernet, self.pairs)]
        return dict(metric=self.metric, n=len(subnets), kendall_tau=self.tau.summary(),
                    spearman_rho=self.rho.summary(), subnets=subnets)

    def report(self) -> str:
        """A table for people, and what it says of the supernet's ranking."""
        order = sorted(range(len(self.pairs)), key=lambda index: -self.pairs[index][0])
        rows: list[list[Any]] = [
            ['subnet', 'MACs', 'parameters', f'{self.metric}, in the supernet', 'alone', 'rank', 'rank alone']]
        for rank, index in enumerate(order, 1):
            own, (supernet, alone) = self.supernet[index], self.pairs[index]
            rows.append([own.number, format_macs(own.macs), format_params(own.params), f'{supernet:.4f}',
                         f'{alone:.4f}', rank, 1 + sum(other[1] > alone for other in self.pairs)])
        return f'{AsciiTable(rows).table}\n{self._verdict()}'

    def _verdict(self) -> str:
        if math.isnan(self.tau.value):
            return f'n = {len(self.pairs)}: all are equally good in the supernet, or alone, so that nothing can be said'
        share, low, high = (50 * (1 + value) for value in (self.tau.value, self.tau.low, self.tau.high))
        lines = [
            f'Kendall tau {self.tau}, Spearman rho {self.rho}, n = {len(self.pairs)}',
            f'Of two of these subnets, the one that is better in the supernet is better alone in about {share:.0f} % '
            f'of cases ({INTERVAL_PERCENT} % interval {low:.0f} to {high:.0f} %); guessing gives 50 %.',
            f'{len(self.pairs)} subnets are few, so the interval is wide. They are spread over the whole range of '
            'accuracy: among subnets that are nearly equally good, the order is less certain.']
        if self.tau.high < 0:
            lines.append('The interval lies below guessing: the ranking is the wrong way round. Subnets that are '
                         'better in the supernet are worse alone, so it cannot be trusted.')
        elif self.tau.low <= 0:
            lines.append('It includes guessing, so this does not show that the ranking can be trusted; a larger count '
                         'of subnets would say more.')
        return '\n'.join(lines)


def draw_ranks(comparison: RankComparison, path: str | Path) -> Figure:
    """Draw each subnet's metric alone against that in the supernet, with its number, into a PNG file."""
    with rc_context(FONT_SIZES):
        figure, axis = new_figure(f'{comparison.metric} of {len(comparison.pairs)} subnets\n' + ', '.join(
            f'{name} {own.value:.2f} ({own.low:.2f} to {own.high:.2f})' for name, own in (
                ('Kendall tau', comparison.tau), ('Spearman rho', comparison.rho)) if not math.isnan(own.value)))
        axis.set_xlabel('in the supernet')
        axis.set_ylabel('trained alone')
        supernet, alone = zip(*comparison.pairs)
        axis.scatter(supernet, alone, color=COLOURS[4], s=36)
        axis.margins(.12)
        numbers = [str(own.number) for own in comparison.supernet]
        for pair, number in zip(comparison.pairs, numbers):
            text = number if len(number) <= MAX_DIGITS else f'{number[:MAX_DIGITS - 3]}...'
            axis.annotate(text, pair, (5, 5), textcoords='offset points', fontsize=8)
        figure.set_size_inches(6, 5)
        save_figure(figure, path, DPI)
    return figure
