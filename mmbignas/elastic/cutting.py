"""From a supernet with a subnet applied to the subnet as a stock network that was cut."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmbignas.elastic.parts import Parts, full_names


def cut_arguments(model: nn.Module, parts: Parts) -> dict[str, Any]:
    """What :func:`~mmbignas.elastic.cut.cut_network` needs to cut the current subnet out of the stock network.

    Args:
        model: the elastic network with a subnet applied.
        parts: its elastic parts.

    Returns:
        dict: ``shapes`` of what differs, ``skipped`` blocks and ``attributes``, of plain lists, numbers and strings.
    """
    layers, plan = parts.layers(), parts.plan
    skipped = [path for path, layer in layers.items() if not layer.is_active]
    full = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    shapes = {}
    for name, planned in full_names(model, plan).items():
        path, _, own = planned.rpartition('.')
        shape = layers[path].shapes_in_use[own]
        if shape != tuple(full[planned].shape) and not _below(name, skipped):
            shapes[name] = list(shape)
    attributes = {}
    for path, follow in plan.attributes.items():
        if not _below(f'{path}.', skipped):
            attributes[path] = {name: layers[path].numbers_in_use[name] for name in follow}
    return dict(shapes=shapes, skipped=skipped, attributes=attributes)


def _below(name: str, paths: list[str]) -> bool:
    return any(name.startswith(f'{path}.') for path in paths)


@torch.no_grad()
def cut_state(model: nn.Module, parts: Parts) -> dict[str, Tensor]:
    """The weights of the current subnet, under the stock network's names.

    Args:
        model: the elastic network with a subnet applied.
        parts: its elastic parts.

    Returns:
        dict: a complete state dict of the cut network: copies, on the device that the weights are on.
    """
    layers = parts.layers()
    skipped = [path for path, layer in layers.items() if not layer.is_active]
    names = full_names(model, parts.plan)
    state = {}
    for name, value in model.state_dict().items():
        if _below(name, skipped):
            continue
        if name in names:
            path, _, own = names[name].rpartition('.')
            value = layers[path].part_in_use(own)
        state[name] = value.detach().clone()
    return state
