"""From a sampler of Optuna, which knows nothing about limits and absent blocks, to subnets worth evaluating."""
from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from mmbignas.search.constraints import Constraints
from mmbignas.search.encoding import Encoding
from mmbignas.search.samplers import SamplerRecipe
from mmbignas.space import Subnet

MAX_DRAWS = 1000
REPEATS = 30  # draws in a row that bring nothing new
COUNTERS = 'mmbignas:counters'  # attribute of a trial: how far the sampler's sequences had come
Direction = Literal['minimize', 'maximize']
Pick = Callable[[Sequence[Subnet], random.Random], Subnet]


class Drawn(NamedTuple):
    """A subnet to evaluate.

    Args:
        subnet: the subnet.
        number: its number in the space.
        attributes: what the sampler needs to know about the trial later, e.g. its generation.
    """

    subnet: Subnet
    number: int
    attributes: dict[str, Any]


class Drawing:
    """Draws subnets that keep the limits and that the study does not have.

    Optuna's sampler works on a study in memory, which mirrors the real one with two differences. Its trials have all
    parameters, also those of blocks that their depth leaves out, since crossover needs them in both parents. And its
    distributions are known from the start, so within one trial a sampler can be asked repeatedly until its draw is
    worth evaluating; other draws leave no trace. After :data:`MAX_DRAWS`, or :data:`REPEATS` without anything new, the
    sampler is given up, and a subnet is drawn uniformly.

    The draws depend only on the seed and on the content of the study, so there is no state that a restart could lose.

    Args:
        encoding: the parameters.
        constraints: the limits.
        recipe: the sampler.
        directions: ``minimize`` or ``maximize`` of each objective.
        seed: the seed of all draws.
    """

    def __init__(self, encoding: Encoding, constraints: Constraints, recipe: SamplerRecipe,
                 directions: Sequence[Direction], seed: int) -> None:
        self._encoding, self._constraints, self._recipe, self._seed = encoding, constraints, recipe, seed
        self._storage = InMemoryStorage()
        self._mirror = optuna.create_study(storage=self._storage, directions=list(directions),
                                           sampler=optuna.samplers.RandomSampler(0))
        self._id = self._storage.get_study_id_from_name(self._mirror.study_name)
        self._known: set[int] = set()

    def draw(self, trials: Sequence[FrozenTrial], taken: Container[int], mix: Any, candidates: int = 1,
             pick: Pick | None = None) -> Drawn | None:
        """Draw a subnet.

        Args:
            trials: those of the real study that are finished or running.
            taken: numbers of the subnets that they evaluate.
            mix: what else the randomness depends on.
            candidates: how many subnets to draw for ``pick``.
            pick: chooses one of them; ``None`` for the first.

        Returns:
            Drawn: ``None`` when nothing is left.
        """
        seed = _hash(self._seed, len(trials), mix)
        running = [self._mirrored(trial) for trial in trials]
        # QMC goes on in one sequence, at the place given by the trials' counters.
        sampler = self._recipe.build(_hash(self._seed) if self._recipe.one_sequence else seed)
        own = self._mirror.ask()
        found: dict[int, Subnet] = {}
        refused: set[int] = set()
        repeats = 0
        for subnet in self._attempts(sampler, own.number):
            number = self._encoding.space.index(subnet)
            known = number in taken or number in found or number in refused
            repeats = repeats + 1 if known else 0
            if not known and self._constraints.allow(subnet):
                found[number] = subnet
            else:
                refused.add(number)
            if len(found) == candidates or repeats == REPEATS:
                break
        attributes = self._attributes(own.number)
        for trial_number in [own.number, *(number for number in running if number is not None)]:
            self._mirror.tell(trial_number, state=TrialState.FAIL)  # which samplers ignore
        chosen = self._choose(list(found.values()), taken, random.Random(seed), pick)
        return None if chosen is None else Drawn(chosen, self._encoding.space.index(chosen), attributes)

    def _choose(self, found: Sequence[Subnet], taken: Container[int], rng: random.Random,
                pick: Pick | None) -> Subnet | None:
        if not found:
            return self._constraints.find(rng, taken)
        return found[0] if pick is None else pick(found, rng)

    def _attempts(self, sampler: BaseSampler, number: int) -> Iterator[Subnet]:
        """A sampler's draw for a trial of the mirror."""
        study = self._mirror
        space = sampler.infer_relative_search_space(study, self._stored(number))
        for _ in range(MAX_DRAWS):
            trial = self._stored(number)  # new each time, since the sampler writes its generation there
            params = dict(sampler.sample_relative(study, trial, space))
            for name, distribution in self._encoding.distributions.items():
                if name not in params:
                    params[name] = sampler.sample_independent(study, trial, name, distribution)
            yield self._encoding.subnet(params)

    def _stored(self, number: int) -> FrozenTrial:
        return self._storage.get_trial(self._storage.get_trial_id_from_study_id_trial_number(self._id, number))

    def _mirrored(self, trial: FrozenTrial) -> int | None:
        """Bring a trial into the mirror; the number there of one that is running."""
        if trial.number in self._known:
            return None
        attributes = dict(trial.system_attrs)
        counters = self._storage.get_study_system_attrs(self._id)
        for name, count in attributes.pop(COUNTERS, {}).items():
            self._storage.set_study_system_attr(self._id, name, max(count, counters.get(name, 0)))
        finished = trial.state == TrialState.COMPLETE
        self._mirror.add_trial(optuna.trial.create_trial(
            state=trial.state, values=trial.values if finished else None, params=self._encoding.filled(trial.params),
            distributions=self._encoding.distributions, system_attrs=attributes))
        if finished:
            self._known.add(trial.number)
        return None if finished else len(self._mirror.get_trials(deepcopy=False)) - 1

    def _attributes(self, number: int) -> dict[str, Any]:
        """What the sampler noted about a trial, and how far its sequences are."""
        counters = {name: count for name, count in self._storage.get_study_system_attrs(self._id).items()
                    if isinstance(count, int)}
        noted = {name: value for name, value in self._stored(number).system_attrs.items() if isinstance(value, int)}
        return {**noted, COUNTERS: counters} if counters else noted


def _hash(*parts: Any) -> int:
    """A seed from anything that is written the same everywhere: 32 bits, as samplers take it."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], 'big')
