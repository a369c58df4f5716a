"""Finding out which groups of a plan a network really computes with."""
from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from mmbignas.elastic.conditions import quiet_run, run
from mmbignas.elastic.parts import Parts
from mmbignas.elastic.plan import Plan, frozen_axis, groups_in
from mmbignas.errors import ConfigError
from mmbignas.utils.models import tensors_in

REASON = 'the network does not compute with fewer'
DRAWS = 3
Widths = dict[str, int]


def verified(model: nn.Module, plan: Plan, batch: Mapping[str, Any], seed: int = 0) -> Plan:
    """The groups and runs of a plan that a network computes with.

    All groups are set to half their width; where that fails, they are added by halves, and the culprits are left out.
    Then all are given widths of their own, and so again. At last the same is done with the runs of blocks,
    which are left out as a whole where that works.

    Args:
        model: the network, in full width; a copy is run.
        plan: what tracing found.
        batch: what the network's ``forward`` takes.
        seed: of the drawn widths.

    Returns:
        Plan: without the culprits, which are among what is frozen.

    Raises:
        ConfigError: when the network does not even compute in full width.
    """
    trial = _Trial(copy.deepcopy(model), plan, batch)
    problem = trial.problem({}, {})
    if problem:
        raise ConfigError(f'model must compute the batch that it is traced with, but it raised {problem}')
    reasons: dict[str, str] = {}
    groups = trial.working(list(plan.groups), lambda name: max(plan.groups[name].size // 2, 1), reasons)
    rng = random.Random(seed)
    for _ in range(DRAWS):
        drawn = {name: rng.randint(1, plan.groups[name].size) for name in groups}
        groups = trial.working(groups, drawn.__getitem__, reasons)
    least = {name: run.least for name, run in plan.runs.items()}
    runs = trial.working(list(least), least.__getitem__, reasons, depth=True)
    for name in least.keys() - runs:  # where it cannot do without the whole run, the first block may be enough
        least[name] = max(least[name], 1)
    runs = trial.working(list(least), least.__getitem__, reasons, depth=True) if len(runs) < len(least) else runs
    plan = replace(plan, runs={name: replace(run, least=least[name]) for name, run in plan.runs.items()})
    return without(plan, {name: f'{REASON} ({reason})' for name, reason in reasons.items()
                          if name in plan.groups and name not in groups},
                   [name for name in plan.runs if name not in runs])


class _Trial:
    """A network that is run with some groups narrowed."""

    def __init__(self, model: nn.Module, plan: Plan, batch: Mapping[str, Any]) -> None:
        self._model, self._plan, self._batch = model, plan, batch
        self._parts = Parts(model, plan)
        self._expected: list[torch.Size] | None = None
        self._modes = ['tensor', 'loss']

    def working(self, names: Sequence[str], size: Callable[[str], int], reasons: dict[str, str],
                depth: bool = False) -> list[str]:
        """The names with which the network computes, all together.

        Args:
            names: groups, or runs.
            size: the width of each, or its depth.
            reasons: what was raised because of a culprit is written to it.
            depth: whether these are runs.
        """

        def fails(chosen: Sequence[str]) -> str | None:
            values = {name: size(name) for name in chosen}
            return self.problem({}, values) if depth else self.problem(values, {})

        def grow(base: list[str], more: list[str]) -> list[str]:
            problem = fails([*base, *more])
            if problem is None:
                return [*base, *more]
            if len(more) == 1:
                reasons[more[0]] = problem
                return base
            half = len(more) // 2
            return grow(grow(base, more[:half]), more[half:])

        return grow([], list(names)) if names else []

    def problem(self, widths: Widths, depths: Widths) -> str | None:
        """What a network raises with these widths and depths; ``None`` when it computes and returns the same shapes."""
        self._parts.apply_widths(widths)
        self._parts.apply_depths(depths)
        for mode in self._modes:
            try:
                with quiet_run(self._model, training=mode == 'loss'):
                    output = run(self._model, self._batch, mode)
            except Exception as error:  # whatever a network may raise
                return f'{type(error).__name__}: {_brief(error)}'
            if mode == 'tensor':
                shapes = [tensor.shape[1:] for tensor in tensors_in(output)]
                if self._expected is None:
                    self._expected = shapes
                elif shapes != self._expected:
                    return 'its outputs have other shapes'
        return None


def _brief(error: Exception) -> str:
    text = ' '.join(str(error).split())
    return text if len(text) < 200 else f'{text[:200]}...'


def without(plan: Plan, groups: Mapping[str, str], runs: Sequence[str] = ()) -> Plan:
    """A plan with some groups made fixed and some runs left out.

    Args:
        plan: the plan.
        groups: name of each group that is fixed -> the reason.
        runs: names of runs that are left out.
    """
    sizes = {name: plan.groups[name].size for name in groups}
    frozen = {reason: list(axes) for reason, axes in plan.frozen.items()}
    for name, reason in groups.items():
        frozen.setdefault(reason, []).extend(
            f'{tensor}[{dim}]' for tensor, axes in plan.tensors.items() if len(axes) > 1
            for dim, axis in enumerate(axes) if name in groups_in(axis))
    tensors = {name: [frozen_axis(axis, sizes) for axis in axes] for name, axes in plan.tensors.items()}
    attributes = {path: {name: frozen_axis(axis, sizes) for name, axis in own.items()}
                  for path, own in plan.attributes.items()}
    attributes = {path: {name: axis for name, axis in own.items() if any(groups_in(axis))}
                  for path, own in attributes.items()}
    return Plan(
        model=plan.model, groups={name: group for name, group in plan.groups.items() if name not in groups},
        tensors={name: axes for name, axes in tensors.items() if any(True for axis in axes for _ in groups_in(axis))},
        attributes={path: own for path, own in attributes.items() if own},
        runs={name: own for name, own in plan.runs.items() if name not in runs}, frozen=frozen, shapes=plan.shapes)
