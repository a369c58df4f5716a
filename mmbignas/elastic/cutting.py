"""From a supernet with a subnet applied to the subnet as a stock network that was cut."""
from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmbignas.elastic.parts import Parts, full_names

CUT = 'mmbignas.Cut'
STANDALONE_CUT = 'mmengine.Cut'  # by which the copy of cut.py in an exported folder registers it
ELASTIC_KEYS = ('of', 'width', 'depth', 'share', 'example', 'plan')


def cut_config(model: nn.Module, parts: Parts, model_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the current subnet as a network of its own.

    Args:
        model: the elastic network with a subnet applied.
        parts: its elastic parts.
        model_cfg: its config, of type ``mmbignas.Elastic``.

    Returns:
        dict: a config of type ``mmbignas.Cut``, which :func:`~mmbignas.elastic.cut.build_cut` builds; for the largest
        subnet, that of the stock network.
    """
    config = copy.deepcopy(dict(model_cfg))
    stock = config['of']
    for name in ELASTIC_KEYS:
        config.pop(name, None)
    if 'SortedCheckpoint' in str(config.get('init_cfg')):  # of the supernet's weights
        del config['init_cfg']
    differences = {name: value for name, value in cut_arguments(model, parts).items() if value}
    if not differences:
        return dict(config, type=stock)
    return dict(config, type=CUT, of=stock, **differences)


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
        path, _, tensor = planned.rpartition('.')
        shape = layers[path].shapes_in_use[tensor]
        if shape != tuple(full[planned].shape) and not _below(name, skipped):
            shapes[name] = list(shape)
    attributes: dict[str, dict[str, Any]] = {}
    for path, follow in plan.attributes.items():
        if not _below(f'{path}.', skipped):
            whole = layers[path].elastic_plan.cut().numbers
            own = {name: layers[path].numbers_in_use[name] for name in follow}
            if any(own[name] != whole[name] for name in own):
                attributes[path] = own
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
