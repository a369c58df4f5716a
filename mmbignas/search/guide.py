"""Which of several candidates to evaluate next, by the expectations of a regression."""
from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mmbignas.search.accuracy_predictor import AccuracyPredictor
from mmbignas.search.constraints import COSTS, Costs
from mmbignas.space import SearchSpace, Subnet
from mmbignas.utils.rules import check_keys, integer

DEFAULTS = dict(candidates=100, min_subnets=30)


class Guide:
    """Learns from the evaluated subnets, and picks candidates that no other is expected to beat.

    Args:
        config: ``dict(candidates=..., min_subnets=...)``: how many candidates there are per subnet, and after how
            many evaluated subnets this begins.
        space: the search space.
        costs: what a subnet costs.
        objectives: names of costs and metrics.

    Raises:
        ConfigError: for settings that are not allowed.

    Attributes:
        candidates: how many candidates there are per subnet.
    """

    def __init__(self, config: Mapping[str, int], space: SearchSpace, costs: Callable[[Subnet], Costs],
                 objectives: Sequence[str]) -> None:
        settings = {**DEFAULTS, **check_keys(config, 'predictor', DEFAULTS)}
        self.candidates, self._least = (integer(2).check(settings[name], f'predictor.{name}') for name in DEFAULTS)
        self._space, self._costs, self._objectives = space, costs, objectives
        # Less is better for all of them.
        self._signs = np.array([1. if name in COSTS else -1. for name in objectives])
        self._predictors = {name: AccuracyPredictor(space) for name in objectives if name not in COSTS}
        self._points = np.empty((0, len(objectives)))

    def learn(self, results: Mapping[int, Sequence[float]]) -> bool:
        """Learn from the results, number of a subnet -> its objectives; return whether there are enough to pick."""
        if len(results) < self._least:
            return False
        values = np.array(list(results.values()))
        if len(results) != len(self._points):
            subnets = [self._space[number] for number in results]
            costs = [self._costs(subnet) for subnet in subnets]
            for place, name in enumerate(self._objectives):
                if name in self._predictors:
                    self._predictors[name].fit(subnets, costs, values[:, place])
            self._points = values * self._signs
        return True

    def pick(self, subnets: Sequence[Subnet], rng: random.Random) -> Subnet:
        """One of the candidates that neither another one nor an evaluated one is expected to beat, if there is any."""
        costs = [self._costs(subnet) for subnet in subnets]
        expected = np.stack([self._predictors[name].predict(subnets, costs) if name in self._predictors else
                             np.array([own[name] for own in costs]) for name in self._objectives], axis=1) * self._signs
        best = ~beaten(expected, expected)
        new = best & ~beaten(expected, self._points)
        return subnets[rng.choice(np.flatnonzero(new if new.any() else best).tolist())]


def beaten(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which points are beaten by another one that is nowhere greater and somewhere less.

    Args:
        points: shape ``(n, k)``; less is better.
        others: shape ``(m, k)``.
    """
    not_greater = np.all(others[None] <= points[:, None], axis=2)
    less = np.any(others[None] < points[:, None], axis=2)
    return np.any(not_greater & less, axis=1)
