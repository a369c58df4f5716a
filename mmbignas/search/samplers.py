"""The samplers by name."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler

from mmbignas.errors import ConfigError
from mmbignas.search.coarse_to_fine import CoarseToFineSampler
from mmbignas.utils.rules import must_be, shown

Build = Callable[..., BaseSampler]

# Each with the arguments that differ from its own defaults, which are for budgets of thousands of trials.
SAMPLERS: dict[str, tuple[Build, dict[str, Any]]] = {
    'nsga2': (NSGAIISampler, dict(population_size=20)),
    'tpe': (TPESampler, dict(multivariate=True)),
    'random': (RandomSampler, {}),
    'qmc': (QMCSampler, dict(scramble=True, warn_independent_sampling=False)),
    'coarse_to_fine': (CoarseToFineSampler, {}),
}
DEFAULT_SAMPLER = 'coarse_to_fine'


class SamplerRecipe:
    """A sampler that can be built repeatedly, each time with another seed.

    Args:
        config: a name among :data:`SAMPLERS`, or ``dict(type=name, **arguments)`` with arguments of its class.
        search_space: all parameters.

    Raises:
        ConfigError: for an unknown name, or arguments that the sampler does not take.
    """

    def __init__(self, config: str | Mapping[str, Any], search_space: Mapping[str, BaseDistribution]) -> None:
        given = dict(config) if isinstance(config, Mapping) else dict(type=config)
        self.name = given.pop('type', None)
        if not isinstance(self.name, str) or self.name not in SAMPLERS:
            raise must_be('sampler', f'one of {", ".join(SAMPLERS)}, or dict(type=name, **arguments)', config)
        for key in ('seed', 'search_space'):
            if key in given:
                raise must_be(f'sampler.{key}', 'left out, as the search gives its own', given[key])
        self._build, defaults = SAMPLERS[self.name]
        self._arguments = {**defaults, **given}
        if self.name == 'coarse_to_fine':
            self._arguments['search_space'] = search_space
        try:
            self.build(0)
        except ConfigError:
            raise
        except (TypeError, ValueError) as error:
            raise ConfigError(f'sampler: {self.name} cannot be built with {shown(given)} ({error})') from error

    @property
    def one_sequence(self) -> bool:
        """Whether all draws come from one sequence, which goes on where the study says, under one seed."""
        return self.name == 'qmc'

    def build(self, seed: int) -> BaseSampler:
        """Build the sampler with a seed of 32 bits."""
        return self._build(**self._arguments, seed=seed)
