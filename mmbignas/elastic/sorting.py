"""Which channels of a group matter most, and loading a checkpoint with these first."""
from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmengine.logging import MMLogger
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmbignas.elastic.axes import Atom, Node, Prod, Sum, normal
from mmbignas.elastic.plan import Plan, node_of
from mmbignas.elastic.self_check import permuted_state
from mmbignas.errors import ConfigError
from mmbignas.registry import WEIGHT_INITIALIZERS
from mmbignas.supernet.checkpoint import Checkpoint, check_state
from mmbignas.supernet.initializers import CheckpointInit
from mmbignas.utils.rules import one_of

BY = ('l1', 'bn', 'both')


def labels(node: Node, atom: Atom) -> np.ndarray:
    """For each position of an axis, the position of a group that it belongs to; -1 where it belongs to none.

    Args:
        node: the axis.
        atom: the group.
    """
    node = normal(node)
    if node is atom:
        return np.arange(node.size)
    if isinstance(node, Sum):
        return np.concatenate([labels(part, atom) for part in node.parts])
    found: Any = np.full(node.size, -1)
    if isinstance(node, Prod):
        shape = [own.size for own in node.factors]
        for axis, own in enumerate(node.factors):
            where = labels(own, atom).reshape([-1 if each == axis else 1 for each in range(len(shape))])
            spread = np.broadcast_to(where, shape).reshape(-1)
            found = np.where(spread >= 0, spread, found)
    return found


def _summed(values: Tensor, where: np.ndarray, size: int) -> Tensor:
    """Values per position of an axis, summed per position of a group."""
    index = torch.from_numpy(where)
    mask = index >= 0
    return torch.zeros(size, dtype=torch.float64).index_add(0, index[mask], values[mask])


@torch.no_grad()
def importances(model: nn.Module, plan: Plan, by: str = 'l1') -> dict[str, Tensor]:
    """How much each position of each group matters.

    Args:
        model: the network, in full width.
        plan: its plan.
        by: ``l1``, the sum of the absolute weights that make a channel, over all layers that make it (Once-for-All,
            arXiv 1908.09791); ``bn``, the sum of the absolute scales that batch normalisations give it (network
            slimming, arXiv 1708.06519), or ``l1`` for a group without any; ``both``, their product.

    Returns:
        dict: name of the group -> shape ``(size,)``, float64.
    """
    atoms = {name: Atom(group.size, name) for name, group in plan.groups.items()}
    modules = dict(model.named_modules())
    parameters = dict(model.named_parameters())
    found = {}
    for name, group in plan.groups.items():
        made = torch.zeros(group.size, dtype=torch.float64)
        scales = torch.zeros(group.size, dtype=torch.float64)
        for tensor in (tensor for path in group.producers for tensor in plan.tensors if _of(tensor, path)):
            weight = parameters.get(tensor)
            if weight is None or weight.dim() < 2:
                continue
            axis = 1 if getattr(modules[tensor.rpartition('.')[0]], 'transposed', False) else 0
            where = labels(node_of(plan.tensors[tensor][axis], atoms), atoms[name])
            others = [dim for dim in range(weight.dim()) if dim != axis]
            made += _summed(weight.detach().double().abs().sum(others).cpu(), where, group.size)
        for path in group.users:
            if isinstance(modules.get(path), _BatchNorm) and f'{path}.weight' in plan.tensors:
                where = labels(node_of(plan.tensors[f'{path}.weight'][0], atoms), atoms[name])
                scales += _summed(parameters[f'{path}.weight'].detach().double().abs().cpu(), where, group.size)
        has_scales = bool(scales.any())
        if by == 'l1' or not has_scales:
            found[name] = made
        else:
            found[name] = scales if by == 'bn' else scales * made
    return found


def _of(tensor: str, path: str) -> bool:
    return tensor.rpartition('.')[0] == path


@torch.no_grad()
def sort_channels(model: nn.Module, plan: Plan, by: str = 'l1') -> dict[str, np.ndarray]:
    """Bring the channels of each group into the order of their importance, the most important first.

    The network computes what it did before, but for rounding: sums have another order.

    Args:
        model: the network, in full width; changed in place.
        plan: its plan.
        by: see :func:`importances`.

    Returns:
        dict: name of each group -> where its positions stood before.
    """
    order = {name: torch.argsort(values, descending=True, stable=True).numpy()
             for name, values in importances(model, plan, by).items()}
    state = {name: tensor.detach() for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    for name, value in permuted_state(state, plan, order).items():
        if value is not state[name]:
            state[name].copy_(value.clone())
    return order


@WEIGHT_INITIALIZERS.register_module()
class SortedCheckpoint(CheckpointInit):
    """A stock network's weights for the supernet of it, the channels of each group in the order of their importance.

    ``init_cfg=dict(type='mmbignas.SortedCheckpoint', checkpoint='rtmdet_tiny.pth', by='l1')``, at a model of type
    ``mmbignas.Elastic``. A subnet has the first channels of each group, so it starts with those that matter most. As
    ``init_cfg`` comes before ``resume`` and ``load_from``, a checkpoint of a supernet is never sorted again.

    Args:
        checkpoint: a file, or an address that MMEngine knows to load.
        by: ``l1``, ``bn`` or ``both``, see :func:`importances`.
        **kwargs: see :class:`~mmbignas.supernet.initializers.CheckpointInit`.

    Raises:
        ConfigError: for another ``by``; when the model is initialised, for a checkpoint that is not of its stock
            network, or a model that is not elastic.
    """

    def __init__(self, checkpoint: str, by: str = 'l1', **kwargs: Any) -> None:
        one_of(BY).check(by, 'SortedCheckpoint.by')
        super().__init__(checkpoint, **kwargs)
        self.by = by

    def __call__(self, module: nn.Module) -> None:
        space: Any = getattr(module, 'elastic', None)
        if not isinstance(getattr(space, 'plan', None), Plan):
            raise ConfigError('init_cfg must have SortedCheckpoint at a model of type mmbignas.Elastic, got it at a '
                              f'{type(module).__name__}')
        super().__call__(module)
        sort_channels(module, space.plan, self.by)
        MMLogger.get_current_instance().info(
            f'{self.checkpoint}: the channels of {len(space.plan.groups)} groups are sorted by {self.by}')

    def _fill(self, source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
        check_state(target, Checkpoint(self.checkpoint, source, {}), more=True)
        for name, value in target.items():
            value.copy_(source[name])
