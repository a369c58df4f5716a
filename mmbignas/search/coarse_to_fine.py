"""The search of the BigNAS paper (arXiv 2003.11142, section 3.4) as a sampler of Optuna."""
from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from mmbignas.search.encoding import element_of
from mmbignas.utils.rules import check_options, integer, number

Params = dict[str, Any]
MAX_GRID_DRAWS = 50
RULES = dict(levels=integer(2), coarse=integer(1), more=number(0, below=1), near=number(0, 1))


class CoarseToFineSampler(BaseSampler):
    """First a coarse grid over whole networks, then small changes to the best.

    On the grid, all parameters of one element (all depths, all widths, the image size, ...) are at the same level
    between their lowest and their highest value, which gives the rough shape of good networks. Once the study
    has ``coarse`` trials, or when the grid has no more, one of the trials on the current Pareto front (with one
    objective: among the best tenth) is drawn, and some of its parameters are changed.

    Everything is read from the study's trials; nothing is kept from one trial to the next.

    Args:
        search_space: all parameters, which are numbers with a step. Their names are those of genes; see
            :class:`~mmbignas.search.Encoding`.
        levels: of the grid, at least 2.
        coarse: how many trials the grid gets at most.
        more: the probability of changing another parameter after each changed one.
        near: the probability that a parameter is moved by one step only, rather than anywhere.
        seed: of what is drawn.
    """

    def __init__(self, search_space: Mapping[str, BaseDistribution], *, levels: int = 3, coarse: int = 20,
                 more: float = 0.3, near: float = 0.5, seed: int | None = None) -> None:
        check_options('sampler', locals(), RULES)
        self._search_space = dict(search_space)
        self._choices = {name: _choices(distribution) for name, distribution in search_space.items()}
        self._elements = sorted({element_of(name) for name in search_space})
        self._levels, self._coarse, self._more, self._near = levels, coarse, more, near
        self._rng = random.Random(seed)
        self._drawing = _Drawing(-1, [], True, set())

    def reseed_rng(self) -> None:
        self._rng.seed()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._search_space

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> Params:
        if self._drawing.trial != trial.number:
            done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            self._drawing = _Drawing(trial.number, _parents(study, done), len(done) < self._coarse, set())
        _, parents, coarse, tried = self._drawing
        for _ in range(MAX_GRID_DRAWS if coarse else 0):
            levels = tuple(self._rng.randrange(self._levels) for _ in self._elements)
            if levels not in tried:
                tried.add(levels)
                return self._grid_point(dict(zip(self._elements, levels)))
        if not parents:
            return {name: self._rng.choice(choices) for name, choices in self._choices.items()}
        return self._changed(self._rng.choice(parents))

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str,
                           param_distribution: BaseDistribution) -> Any:
        return self._rng.choice(self._choices[param_name])

    def _grid_point(self, levels: Mapping[str, int]) -> Params:
        """All parameters, those of an element at one level."""
        return {name: choices[round(levels[element_of(name)] * (len(choices) - 1) / (self._levels - 1))]
                for name, choices in self._choices.items()}

    def _changed(self, parent: Params) -> Params:
        """A parent with one or more parameters changed."""
        names, params = list(self._choices), dict(parent)
        self._rng.shuffle(names)
        for name in names:
            choices = self._choices[name]
            place = min(range(len(choices)), key=lambda place: abs(choices[place] - parent[name]))
            reach = 1 if self._rng.random() < self._near else len(choices)
            params[name] = self._rng.choice(choices[max(place - reach, 0):place] + choices[place + 1:place + 1 + reach])
            if self._rng.random() >= self._more:
                break
        return params


class _Drawing(NamedTuple):
    """What stays the same while one trial draws repeatedly.

    Args:
        trial: its number.
        parents: what is changed.
        coarse: whether it draws from the grid, as long as that has more.
        tried: levels of the grid that were drawn.
    """

    trial: int
    parents: list[Params]
    coarse: bool
    tried: set[tuple[int, ...]]


def _parents(study: Study, done: Sequence[FrozenTrial]) -> list[Params]:
    """The trials on the Pareto front; with one objective, the best tenth."""
    if len(study.directions) > 1:
        return [trial.params for trial in study.best_trials]
    sign = 1 if study.direction == StudyDirection.MINIMIZE else -1
    best = sorted(done, key=lambda trial: sign * trial.values[0])
    return [trial.params for trial in best[:math.ceil(len(best) / 10)]]


def _choices(distribution: BaseDistribution) -> list[Any]:
    """All values of a parameter, ascending."""
    assert isinstance(distribution, (IntDistribution, FloatDistribution)) and distribution.step is not None
    count = round((distribution.high - distribution.low) / distribution.step) + 1
    if isinstance(distribution, IntDistribution):
        return [distribution.low + place * distribution.step for place in range(count)]
    return [round(distribution.low + place * distribution.step, 10) for place in range(count)]
