"""Proof that the groups of a plan mean what they say.

That a narrow network equals one that was cut proves little, since both go by the same positions. But to permute the
channels of a group, wherever it occurs, must leave the network as it was. This is tried in double precision and with
the statistics of the batch (statistics of an untrained network would hide mistakes), with random weights in all
normalisations.
"""
from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmbignas.elastic.axes import Atom, positions
from mmbignas.elastic.conditions import batch_statistics, quiet_run, tensor_outputs
from mmbignas.elastic.extensions import double_precision
from mmbignas.elastic.plan import Plan, node_of
from mmbignas.errors import ConfigError

# Normalising a pair of pixels that are almost equal multiplies rounding by 1 / sqrt(eps), and a deep network does so
# many times. What is true for one eps is true for another.
EPS = 1e-2
TOLERANCE = 1e-7  # mistakes begin at 1e-3; rounding stays below 1e-12, and a network may amplify it


@torch.no_grad()
def permuted_state(state: Mapping[str, Tensor], plan: Plan, order: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """The tensors of a network with the channels of groups in another order.

    Args:
        state: name -> tensor in full width, under the plan's names.
        plan: the plan.
        order: name of a group -> its positions in the new order; others keep theirs.

    Returns:
        dict: those of ``state`` that the plan knows.
    """
    atoms = {name: Atom(group.size, name) for name, group in plan.groups.items()}
    kept = {atoms[name]: index for name, index in order.items()}
    result = {}
    for name, axes in plan.tensors.items():
        value = state[name]
        for dim, axis in enumerate(axes):
            index = positions(node_of(axis, atoms), kept)
            if not np.array_equal(index, np.arange(len(index))):
                value = value.index_select(dim, torch.from_numpy(index).to(value.device))
        result[name] = value
    return result


def difference(model: nn.Module, plan: Plan, batch: Mapping[str, Any], groups: Sequence[str] | None = None,
               seed: int = 0) -> float:
    """How much the outputs of a network change when the channels of groups are permuted.

    Args:
        model: the network, in full width; a copy is run.
        plan: the plan.
        batch: what the network's ``forward`` takes.
        groups: the groups to permute; all if not given.
        seed: of the permutations and weights.

    Returns:
        float: greatest difference of any output, relative to the greatest value in it.
    """
    twin = copy.deepcopy(model).double()
    double = {name: value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
              for name, value in batch.items()}
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in twin.parameters():
            if parameter.dim() <= 1 or float(parameter.abs().max()) == float(parameter.abs().min()):
                noise = torch.rand(parameter.shape, generator=generator, dtype=parameter.dtype)
                parameter.add_(noise - 0.25)
    for module in twin.modules():
        if isinstance(module, _BatchNorm):
            module.eps = max(module.eps, EPS)
    own = {**dict(twin.named_parameters()), **dict(twin.named_buffers())}
    with quiet_run(twin, seed=seed), batch_statistics(twin), double_precision():
        expected = tensor_outputs(twin, double)
    order = {name: rng.permutation(plan.groups[name].size) for name in (plan.groups if groups is None else groups)}
    with torch.no_grad():
        for name, value in permuted_state(own, plan, order).items():
            own[name].copy_(value.clone())
    with quiet_run(twin, seed=seed), batch_statistics(twin), double_precision():
        found = tensor_outputs(twin, double)
    worst = 0.0
    for one, other in zip(expected, found, strict=True):
        if one.shape != other.shape:
            return float('inf')
        if one.numel() and one.is_floating_point():
            scale = float(one.abs().max()) or 1.0
            worst = max(worst, float((one - other).abs().nan_to_num(float('inf')).max()) / scale)
    return worst


def check(model: nn.Module, plan: Plan, batch: Mapping[str, Any], tolerance: float = TOLERANCE) -> float:
    """Refuse a plan whose groups do not mean what they say.

    Args:
        model: the network, in full width.
        plan: the plan.
        batch: what the network's ``forward`` takes.
        tolerance: the greatest relative difference that rounding explains.

    Returns:
        float: the difference, see :func:`difference`.

    Raises:
        ConfigError: naming the groups that are wrong.
    """
    found = difference(model, plan, batch)
    if found <= tolerance:
        return found
    culprits = culprits_of(model, plan, batch, tolerance)
    raise ConfigError(
        f'plan must leave the network as it is when the channels of a group are permuted, but the outputs change by '
        f'{found:.2g} of their greatest value because of {", ".join(culprits[:5]) or "several groups together"}; '
        'the rule of an operation there is wrong')


def culprits_of(model: nn.Module, plan: Plan, batch: Mapping[str, Any], tolerance: float = TOLERANCE) -> list[str]:
    """The groups that change the network's outputs when they are permuted by themselves."""

    def search(names: list[str]) -> list[str]:
        if not names or difference(model, plan, batch, names) <= tolerance:
            return []
        if len(names) == 1:
            return names
        half = len(names) // 2
        return [*search(names[:half]), *search(names[half:])]

    return search(list(plan.groups))
