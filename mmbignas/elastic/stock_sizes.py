"""Whether a part of a subnet is of a size that the stock class has in its own arguments, such as ``widen_factor``."""
from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from torch import nn

DEPTHS = ('deepen_factor', 'depth', 'arch')
WIDTHS = ('widen_factor', 'base_channels', 'stem_channels')
PARTS = 12  # a depth is deepened by multiples of one such part

Shapes = dict[str, tuple[int, ...]]


def stock_sizes(model: nn.Module, model_cfg: Mapping[str, Any], cut: nn.Module) -> dict[str, dict[str, Any]]:
    """The parts of a subnet that the stock class builds by itself when it is given other arguments.

    Args:
        model: the stock network.
        model_cfg: its config.
        cut: the network that is cut out of it.

    Returns:
        dict: name of each such part, e.g. ``backbone`` -> its arguments that differ from the config's. All parameters
        and buffers of the part then have the same names and shapes as the cut network's.
    """
    found = {}
    for name, part_cfg in model_cfg.items():
        part, own = getattr(model, name, None), getattr(cut, name, None)
        if isinstance(part_cfg, Mapping) and 'type' in part_cfg and isinstance(part, nn.Module) and own is not None:
            wanted = _shapes(own)
            if wanted and wanted != _shapes(part):
                arguments = _arguments(part, part_cfg, wanted)
                if arguments is not None:
                    found[name] = arguments
    return found


def _shapes(module: nn.Module) -> Shapes:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def _arguments(part: nn.Module, part_cfg: Mapping[str, Any], wanted: Shapes) -> dict[str, Any] | None:
    """Arguments with which a part's class builds tensors of these names and shapes: first the depth, then the width."""
    full = _shapes(part)
    shares = sorted({shape[0] / full[name][0] for name, shape in wanted.items() if shape and name in full})
    depths: list[dict[str, Any]] = [{}]
    if wanted.keys() != full.keys():
        tried = _combinations(part, part_cfg, DEPTHS, [count / PARTS for count in range(1, PARTS)])
        depths = [own for own in tried if (_built(part_cfg, own) or {}).keys() == wanted.keys()]
    for depth in depths:
        for width in ({}, *_combinations(part, part_cfg, WIDTHS, shares)):
            if _built(part_cfg, {**depth, **width}) == wanted:
                return {**depth, **width}
    return None


def _combinations(part: nn.Module, part_cfg: Mapping[str, Any], names: Iterable[str],
                  shares: Iterable[float]) -> Iterator[dict[str, Any]]:
    """Other values of some arguments, those that a part's class has: shares of a number, or keys of a table of it."""
    parameters, table = inspect.signature(type(part)).parameters, getattr(part, 'arch_settings', None)
    options: dict[str, list[Any]] = {}
    for name in names:
        now = part_cfg.get(name, parameters[name].default if name in parameters else None)
        if name in ('depth', 'arch') and isinstance(table, Mapping) and now in table:
            options[name] = [now, *(key for key in table if key != now)]
        elif name not in ('depth', 'arch') and isinstance(now, (int, float)):
            kind = round if isinstance(now, int) else partial(round, ndigits=6)
            options[name] = list(dict.fromkeys([now, *(kind(now * share) for share in shares)]))
    for values in itertools.islice(itertools.product(*options.values()), 1, None):
        yield {name: value for (name, own), value in zip(options.items(), values) if value != own[0]}


def _built(part_cfg: Mapping[str, Any], arguments: Mapping[str, Any]) -> Shapes | None:
    """Shapes of a part that is built with other arguments; ``None`` where its class refuses them."""
    config = ConfigDict(copy.deepcopy({**part_cfg, **arguments, 'init_cfg': None}))
    try:
        with torch.device('meta'):
            return _shapes(MODELS.build(config))
    except Exception:  # whatever a class may raise
        return None
