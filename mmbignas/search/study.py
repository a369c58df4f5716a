"""A search for the best subnets as a study of Optuna that any number of processes and machines work on."""
from __future__ import annotations

import copy
import math
import secrets
import time
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from mmbignas.search.constraints import COSTS, Constraints, Costs
from mmbignas.search.encoding import Encoding
from mmbignas.search.guide import Guide
from mmbignas.search.owner import Heartbeat, Silence, is_gone, is_here, this_process
from mmbignas.search.proposals import Direction, Drawing, Drawn
from mmbignas.search.samplers import DEFAULT_SAMPLER, SamplerRecipe
from mmbignas.search.storage import agree, check_storage, open_storage, shown_storage, storage_errors
from mmbignas.search.trials import CLAIM, FAILED, HEARTBEAT, LINE, OWNER, SUBNET, subnet_trials
from mmbignas.space import SearchSpace, Subnet
from mmbignas.utils import rules
from mmbignas.utils.metric_values import metric_value

HEARTBEATS = 20  # in the time after which a process is considered dead
FAILURES = 2  # after which a subnet is not evaluated again


@dataclass(frozen=True)
class Proposal:
    """A subnet for this process, and no other, to evaluate.

    Args:
        subnet: the subnet.
        number: its number in the space.
        costs: what it costs.
        trial: the number of its trial in the study.
    """

    subnet: Subnet
    number: int
    costs: Costs
    trial: int
    _id: int = field(repr=False)


class SubnetStudy:
    """A search for the best subnets: ask for one, evaluate it, tell the result.

    Any number of processes, on any number of machines, may do so at once with the same storage, and any of them may be
    killed at any moment. None evaluates a subnet that another one evaluates or has evaluated; :meth:`ask`
    says how. The machines' clocks need not agree.

    Args:
        space: the search space.
        costs: what a subnet costs: ``macs``, ``params`` and, where it is known, ``latency_ms``.
        objectives: names of costs, which are minimised, and of metrics, which are maximised.
        storage: see :func:`~mmbignas.search.open_storage`.
        constraints: limits of the costs, see :class:`~mmbignas.search.Constraints`.
        sampler: a name among :data:`~mmbignas.search.SAMPLERS`, or ``dict(type=name, **arguments)``.
        seed: the same seed gives the same subnets, as long as one process works on the study, even if it is restarted
            in between. If other processes have running trials, or were first with the same subnet, the name of the
            process goes into the seed as well, so that equal seeds do not make them draw the same. ``None`` for any
            seed.
        predictor: ``dict(candidates=..., min_subnets=...)``: as soon as there are ``min_subnets`` results, this many
            candidates are drawn per subnet, and one that looks good to a regression is taken; see
            :class:`~mmbignas.search.AccuracyPredictor`.
        name: of the study in its storage.
        identity: what a result depends on, e.g. hashes of weights and data: part -> something that JSON can hold.
        stale_after: seconds in which this process sees no new sign of life, after which a process of another machine is
            considered dead; a thread of each process gives such a sign several times in that period. Dead processes of
            this machine are noticed at once, and living ones are never considered dead.

    Raises:
        ConfigError: for settings that are not allowed, or a study of another identity, objectives or constraints.
        DependencyError: when the package for the database is missing.

    Attributes:
        study: the study, as Optuna knows it.
        objectives: their names.
        constraints: the limits.
    """

    def __init__(self, space: SearchSpace, costs: Callable[[Subnet], Costs], objectives: Sequence[str],
                 storage: str | Path | BaseStorage, *, constraints: Mapping[str, Any] | None = None,
                 sampler: str | Mapping[str, Any] = DEFAULT_SAMPLER, seed: int | None = None,
                 predictor: Mapping[str, int] | None = None, name: str = 'subnets',
                 identity: Mapping[str, Any] | None = None, stale_after: float = 600.) -> None:
        check_storage(storage)
        rules.text('a string that is not empty').check(name, 'study_name')
        rules.number(above=0).check(stale_after, 'stale_after')
        self.space, self.costs, self.stale_after = space, costs, stale_after
        self.objectives = _read_objectives(objectives, costs(space.min()))
        self.constraints = Constraints(constraints, space, costs)
        self._encoding = Encoding(space)
        recipe = SamplerRecipe(sampler, self._encoding.distributions)
        self._guide = None if predictor is None else Guide(predictor, space, costs, self.objectives)
        directions: list[Direction] = ['minimize' if name in COSTS else 'maximize' for name in self.objectives]
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # Optuna reports each trial
        self._where = f'{shown_storage(storage)}, study {name!r}'
        self._address = str(storage) if isinstance(storage, (str, Path)) else ''
        with storage_errors(self._where, self._address):
            self.study = optuna.create_study(storage=open_storage(storage), study_name=name, directions=directions,
                                             load_if_exists=True)
        limits = {key: [end if math.isfinite(end) else None for end in ends]
                  for key, ends in self.constraints.limits.items()}
        with storage_errors(self._where, self._address):
            agree(self.study, dict(identity=dict(identity or {}), objectives=self.objectives, constraints=limits),
                  directions)
        self._drawing = Drawing(self._encoding, self.constraints, recipe, directions,
                                secrets.randbits(32) if seed is None else seed)
        self._heartbeats: dict[int, Heartbeat] = {}  # number of a trial that is open here -> its own
        self._silence = Silence()
        self._warned: set[str] = set()  # numbers of subnets that were left out

    def ask(self) -> Proposal | None:
        """Get a subnet to evaluate.

        Subnets of dead processes, and those that were given back, come first. Others come from the sampler. A subnet
        that was given back twice is left out, with a warning.

        No lock is needed. A trial is added to the study together with its subnet, in one step, and the storage gives it
        the next number. The trials are read afterwards. If one with a lower number has the same subnet and runs or has
        finished, the subnet belongs to that trial: ours fails, and another one is drawn. Of two trials with the
        same subnet the later one always sees the earlier one, so at most one of them is evaluated.

        Returns:
            Proposal: ``None`` when no subnet within the limits is left.
        """
        lost = 0
        while True:
            trials = self._trials()
            left_out = self._left_out(trials)
            drawn = self._given_back(trials, left_out) or self._draw(trials, left_out, lost)
            if drawn is None:
                return None
            proposal = self._claim(drawn)
            if proposal is not None:
                return proposal
            lost += 1

    def _trials(self) -> list[FrozenTrial]:
        """All trials of subnets, after freeing those whose process is dead."""
        trials = self._read_trials()
        dead = [trial for trial in trials if trial.state == TrialState.RUNNING and self._is_dead(trial)]
        for trial in dead:
            self._free(trial)
        return self._read_trials() if dead else trials

    def _read_trials(self) -> list[FrozenTrial]:
        with storage_errors(self._where, self._address):
            return subnet_trials(self.study.get_trials(deepcopy=False), self.space.size, self._where)

    def _is_dead(self, trial: FrozenTrial) -> bool:
        owner = trial.user_attrs[OWNER]
        if is_here(owner):
            return is_gone(owner)
        return self._silence.seconds(trial.number, trial.user_attrs.get(HEARTBEAT)) > self.stale_after

    def _free(self, trial: FrozenTrial) -> None:
        """End the trial of a dead process. If it was killed during its last step, the result is already there."""
        line = trial.user_attrs.get(LINE)
        self._finish(trial.number, None if line is None else self._values(int(trial.user_attrs[SUBNET]), line))

    def _finish(self, number: int, values: Sequence[float] | None) -> bool:
        """Finish a trial, with its objectives or as failed. Return whether it is now finished with objectives."""
        if values is not None and any(map(math.isnan, values)):
            values = None  # no sampler can learn from it
        state = TrialState.FAIL if values is None else TrialState.COMPLETE
        with storage_errors(self._where, self._address):
            try:
                trial = self.study.tell(number, values, state, skip_if_finished=True)
            except UpdateFinishedTrialError:  # another process did it at the same moment
                trial = self.study.get_trials(deepcopy=False)[number]
        return trial.state == TrialState.COMPLETE

    def _left_out(self, trials: Sequence[FrozenTrial]) -> set[str]:
        """Numbers of the subnets whose evaluation keeps failing, not because a process died."""
        failures = Counter(trial.user_attrs[SUBNET] for trial in trials if FAILED in trial.user_attrs)
        left_out = {number for number, count in failures.items() if count >= FAILURES}
        for number in sorted(left_out - self._warned, key=int):
            warnings.warn(f'the evaluation of subnet {number} failed {failures[number]} times; the search leaves it '
                          'out', stacklevel=3)
        self._warned |= left_out
        return left_out

    def _given_back(self, trials: Sequence[FrozenTrial], left_out: set[str]) -> Drawn | None:
        """A subnet whose trials have all failed."""
        taken = left_out | {trial.user_attrs[SUBNET] for trial in trials if trial.state != TrialState.FAIL}
        for trial in trials:
            if trial.state == TrialState.FAIL and (number := trial.user_attrs[SUBNET]) not in taken:
                return Drawn(self.space[int(number)], int(number), trial.system_attrs)
        return None

    def _draw(self, trials: Sequence[FrozenTrial], left_out: set[str], lost: int) -> Drawn | None:
        trials = [self._as_known(trial) for trial in trials if trial.state != TrialState.FAIL]
        others = any(trial.state == TrialState.RUNNING and trial.user_attrs[OWNER] != this_process()
                     for trial in trials)
        mix = (this_process(), lost) if others or lost else None
        taken = {int(number) for number in left_out | {trial.user_attrs[SUBNET] for trial in trials}}
        if self._guide is None or not self._guide.learn({
                int(trial.user_attrs[SUBNET]): trial.values for trial in trials if trial.state == TrialState.COMPLETE}):
            return self._drawing.draw(trials, taken, mix)
        return self._drawing.draw(trials, taken, mix, self._guide.candidates, self._guide.pick)

    def _as_known(self, trial: FrozenTrial) -> FrozenTrial:
        """A trial with the parameters and objectives that follow from its subnet and its line."""
        known, number = copy.copy(trial), int(trial.user_attrs[SUBNET])
        known.params = self._encoding.params(self.space[number])
        if trial.state == TrialState.COMPLETE:
            known.values = self._values(number, trial.user_attrs[LINE])
        return known

    def _claim(self, drawn: Drawn) -> Proposal | None:
        """Add a trial for a subnet; ``None`` if another process was first."""
        params, number = self._encoding.params(drawn.subnet), str(drawn.number)
        claim = uuid.uuid4().hex
        with storage_errors(self._where, self._address):
            self.study.add_trial(optuna.trial.create_trial(
                state=TrialState.RUNNING, params=params, system_attrs=drawn.attributes,
                distributions={name: self._encoding.distributions[name] for name in params},
                user_attrs={SUBNET: number, OWNER: this_process(), HEARTBEAT: time.time(), CLAIM: claim}))
        trials = self._read_trials()
        own = next(trial for trial in reversed(trials) if trial.user_attrs.get(CLAIM) == claim)
        for trial in trials:
            if (trial.number < own.number and trial.user_attrs.get(SUBNET) == number
                    and trial.state in (TrialState.RUNNING, TrialState.COMPLETE)):
                self._finish(own.number, None)
                return None
        proposal = Proposal(drawn.subnet, drawn.number, self.costs(drawn.subnet), own.number, own._trial_id)
        self._heartbeats[proposal.trial] = Heartbeat(lambda: self._set(proposal, HEARTBEAT, time.time()),
                                                     self.stale_after / HEARTBEATS)
        return proposal

    def tell(self, proposal: Proposal, line: Mapping[str, Any]) -> bool:
        """Finish a subnet.

        Args:
            proposal: from :meth:`ask`.
            line: what is known about it: its costs, ``metrics`` (name -> value), and anything else that JSON can hold.
                A metric that is missing, since nothing was detected, counts as 0. The costs that count are those of
                the subnet. A subnet with an objective that is no number has failed, see :meth:`fail`.

        Returns:
            bool: ``False`` if the subnet has failed, or the process was considered dead and it was given to others.

        Raises:
            ConfigError: when the storage cannot be read or written, as on a full disk.
        """
        values = self._values(proposal.number, line)
        if any(map(math.isnan, values)):
            self.fail(proposal)
            return False
        self._stop_heartbeat(proposal)
        with suppress(UpdateFinishedTrialError):
            self._set(proposal, LINE, dict(line))
        return self._finish(proposal.trial, values)

    def fail(self, proposal: Proposal) -> None:
        """Give back a subnet whose evaluation failed. Whoever asks next gets it, unless it has failed before."""
        self._stop_heartbeat(proposal)
        with suppress(UpdateFinishedTrialError):
            self._set(proposal, FAILED, True)
        self._finish(proposal.trial, None)

    def _stop_heartbeat(self, proposal: Proposal) -> None:
        if (heartbeat := self._heartbeats.pop(proposal.trial, None)) is not None:
            heartbeat.stop()

    def _set(self, proposal: Proposal, key: str, value: Any) -> None:
        # There is no public way to change an attribute of a trial that was not made by Study.ask.
        with storage_errors(self._where, self._address):
            self.study._storage.set_trial_user_attr(proposal._id, key, value)

    def _values(self, number: int, line: Mapping[str, Any]) -> list[float]:
        """The objectives of a subnet: its costs as they are, and metrics of its line."""
        costs = self.costs(self.space[number])
        return [float(costs[name]) if name in COSTS else metric_value(line['metrics'], name)
                for name in self.objectives]

    def lines(self) -> list[dict[str, Any]]:
        """The lines of all finished subnets, in the order in which they were proposed."""
        return [copy.deepcopy(trial.user_attrs[LINE]) for trial in self._read_trials()
                if trial.state == TrialState.COMPLETE]

    def counts(self) -> dict[str, int]:
        """How many trials are ``finished``, ``running`` and ``failed``; those of dead processes have failed."""
        states = [trial.state for trial in self._trials()]
        return dict(finished=states.count(TrialState.COMPLETE), running=states.count(TrialState.RUNNING),
                    failed=states.count(TrialState.FAIL))


def _read_objectives(objectives: Sequence[str], costs: Costs) -> tuple[str, ...]:
    known = [name for name in COSTS if costs.get(name) is not None]
    allowed = f'a non-empty list of different names of metrics and of {", ".join(known)}'
    rules.list_of(rules.text(), allowed, least=1).check(objectives, 'objectives')
    if len(set(objectives)) < len(objectives) or not {*COSTS} & {*objectives} <= {*known}:
        raise rules.must_be('objectives', allowed, objectives)
    return tuple(objectives)
