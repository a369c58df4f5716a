"""The accuracy of subnets that were not evaluated, from those that were."""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import kendalltau
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from mmbignas.search.constraints import COSTS, Costs
from mmbignas.space import Genome, SearchSpace, Subnet
from mmbignas.utils.rules import must_be

FOLDS = 5


class RankCorrelation(NamedTuple):
    """How well one ranking agrees with another.

    Args:
        tau: Kendall's tau-b; 1 for the same order, 0 for no relation.
        subnets: how many were ranked.
    """

    tau: float
    subnets: int


class AccuracyPredictor:
    """A regression from a subnet's genes and costs to a metric.

    Genes become numbers that grow from the lowest choice to 1, the highest; the gene of an absent block is 0, less than
    any choice. Costs are logarithms. The regression is a support vector machine on these, standardised.

    Args:
        space: the search space.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._genome = Genome(space)
        # On subnets of two trained supernets it ranked better, from 40 results on, than linear and quadratic ridge
        # regression, random forests and boosted trees on average, and it learns in milliseconds.
        self._model = TransformedTargetRegressor(make_pipeline(StandardScaler(), SVR(C=1., epsilon=0.1)),
                                                 transformer=StandardScaler())

    def features(self, subnets: Sequence[Subnet], costs: Sequence[Costs]) -> np.ndarray:
        """What the regression sees of subnets and of what each costs, shape ``(subnets, genes + costs)``."""
        genes = self._genome.genes
        vectors = [[(index + 1) / len(gene.choices) for gene, index in zip(genes, self._genome.encode(subnet))]
                   for subnet in subnets]
        amounts = [[np.log(own[name]) for name in COSTS if own.get(name)] for own in costs]
        return np.hstack([np.asarray(vectors, dtype=float), np.asarray(amounts, dtype=float)])

    def fit(self, subnets: Sequence[Subnet], costs: Sequence[Costs], values: Sequence[float] | np.ndarray
            ) -> AccuracyPredictor:
        """Learn from at least two evaluated subnets, what each costs, and the metric of each."""
        self._model.fit(self.features(subnets, costs), np.asarray(values, dtype=float))
        return self

    def predict(self, subnets: Sequence[Subnet], costs: Sequence[Costs]) -> np.ndarray:
        """The expected metric of each subnet, given what it costs."""
        return self._model.predict(self.features(subnets, costs))

    def cross_validated(self, subnets: Sequence[Subnet], costs: Sequence[Costs],
                        values: Sequence[float] | np.ndarray) -> RankCorrelation:
        """How well it ranks subnets that it did not learn from; arguments as for :meth:`fit`.

        Raises:
            ConfigError: for fewer subnets than folds.
        """
        if len(subnets) < FOLDS:
            raise must_be('number of subnets', f'at least {FOLDS}, one per fold', len(subnets))
        features, expected = self.features(subnets, costs), np.asarray(values, dtype=float)
        found = np.empty_like(expected)
        for learned, held_out in KFold(FOLDS, shuffle=True, random_state=0).split(features):
            model = clone(self._model).fit(features[learned], expected[learned])
            found[held_out] = model.predict(features[held_out])
        return RankCorrelation(float(kendalltau(found, expected).statistic), len(expected))
