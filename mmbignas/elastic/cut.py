"""A stock network cut to given shapes, of plain torch layers.

This file needs torch and MMEngine only. It is copied into exported folders, which so need no mmbignas.
"""
from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from torch import Tensor, nn

Shapes = Mapping[str, Sequence[int]]


class PassThrough(nn.Module):
    """Stands for a block that was left out: hands on what it is given.

    Args:
        block: the block; its numbers and strings, which its surroundings may read, are kept.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        for name, value in vars(block).items():
            if not name.startswith('_') and isinstance(value, (int, float, str, tuple)):
                setattr(self, name, value)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The first argument."""
        return args[0] if args else next(iter(kwargs.values()))


@dataclass(frozen=True)
class Numbers:
    """The attributes of a layer that follow from the shapes of its parameters and buffers.

    Args:
        kind: of layer; '' for one without such attributes.
        channels: first axis of its weight in full width.
        groups: of a grouped convolution or a group normalisation in full width.
        transposed: of a convolution.
    """

    kind: str = ''
    channels: int = 0
    groups: int = 1
    transposed: bool = False

    @classmethod
    def of(cls, layer: Any) -> Numbers:
        """Read them off a layer in full width."""
        weight = layer._parameters.get('weight')
        channels = 0 if weight is None else weight.shape[0]
        if isinstance(layer, nn.GroupNorm):
            return cls('group norm', channels, layer.num_groups)
        if isinstance(layer, nn.LayerNorm):
            return cls('layer norm 2d' if hasattr(layer, 'num_channels') else 'layer norm', channels)
        if hasattr(layer, 'num_features') and {'weight', 'running_mean'} & {*layer._parameters, *layer._buffers}:
            return cls('batch norm', channels)
        if weight is not None and weight.dim() > 2 and hasattr(layer, 'groups') and hasattr(layer, 'in_channels'):
            return cls('convolution', channels, layer.groups, bool(getattr(layer, 'transposed', False)))
        for kind, name in (('linear', 'in_features'), ('embedding', 'embedding_dim'), ('prelu', 'num_parameters')):
            if weight is not None and hasattr(layer, name):
                return cls(kind, channels)
        return cls()

    def __call__(self, shapes: Shapes) -> dict[str, Any]:
        """The attributes, by name.

        Args:
            shapes: name of each parameter and buffer -> its shape.
        """
        weight = tuple(shapes.get('weight') or ())
        sized = weight or tuple(shapes.get('running_mean') or ())
        if not self.kind or not sized:
            return {}
        if self.kind == 'convolution':
            # Groups are dropped whole; the weight's first axis has the groups' channels, of input or of output.
            groups = self.groups * weight[0] // self.channels if self.groups > 1 else 1
            first, second = weight[0], weight[1] * groups
            if self.transposed:
                return dict(in_channels=first, out_channels=second, groups=groups)
            return dict(in_channels=second, out_channels=first, groups=groups)
        if self.kind == 'group norm':
            groups = self.groups * sized[0] // self.channels if self.groups > 1 else 1
            return dict(num_channels=sized[0], num_groups=groups)
        if self.kind.startswith('layer norm'):
            return dict(normalized_shape=weight, **(dict(num_channels=weight[0]) if '2d' in self.kind else {}))
        return {'batch norm': dict(num_features=sized[0]), 'embedding': dict(embedding_dim=weight[-1]),
                'linear': dict(in_features=weight[-1], out_features=weight[0]),
                'prelu': dict(num_parameters=weight[0])}[self.kind]


@torch.no_grad()
def cut_network(model: nn.Module, shapes: Shapes, skipped: Iterable[str] = (),
                attributes: Mapping[str, Mapping[str, Any]] | None = None) -> nn.Module:
    """Cut a network to given shapes, in place.

    Its weights are not those of any subnet afterwards: load some.

    Args:
        model: the stock network.
        shapes: name of each parameter or buffer that differs -> its shape.
        skipped: paths of blocks that are left out.
        attributes: path of a module -> other attributes that follow, such as ``out_channels`` of a module without
            parameters.

    Returns:
        nn.Module: the network.

    Raises:
        ValueError: for names that the network does not have.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    for path in skipped:
        parent, _, name = path.rpartition('.')
        if path not in modules:
            raise ValueError(f'skipped: the network has no module {path!r}')
        setattr(modules[parent], name, PassThrough(modules[path]))
    layers: dict[str, dict[str, Sequence[int]]] = {}
    for name, shape in shapes.items():
        path, _, own = name.rpartition('.')
        if path not in modules or own not in {*modules[path]._parameters, *modules[path]._buffers}:
            raise ValueError(f'shapes: the network has no parameter {name!r}')
        layers.setdefault(path, {})[own] = tuple(shape)
    cut: dict[int, Tensor] = {}  # tensors that are shared stay shared
    for path, own_shapes in layers.items():
        layer = modules[path]
        state = {name: value for name, value in [*layer._parameters.items(), *layer._buffers.items()]
                 if value is not None}
        full = {name: tuple(value.shape) for name, value in state.items()}
        if all(full[name] == shape for name, shape in own_shapes.items()):
            continue  # shared with one that was cut before
        numbers = Numbers.of(layer)({**full, **own_shapes})
        for name, shape in own_shapes.items():
            value = state[name]
            if id(value) not in cut:
                new: Tensor = value.new_zeros(shape)
                cut[id(value)] = nn.Parameter(new, value.requires_grad) if isinstance(value, nn.Parameter) else new
            setattr(layer, name, cut[id(value)])
        for name, number in numbers.items():
            setattr(layer, name, number)
    for path, values in (attributes or {}).items():
        for name, number in values.items():
            setattr(modules[path], name, number)
    return model


@MODELS.register_module(name='Cut', force=True)
def build_cut(of: Any, shapes: Shapes = MappingProxyType({}), skipped: Sequence[str] = (),
              attributes: Mapping[str, Mapping[str, Any]] | None = None, **config: Any) -> nn.Module:
    """Build a stock network and cut it: ``model = dict(type='mmbignas.Cut', of='mmdet.RTMDet', shapes={...}, ...)``.

    Args:
        of: class of the stock network, or its name in the registry.
        shapes: see :func:`cut_network`.
        skipped: likewise.
        attributes: likewise.
        **config: of the stock network, as in its config.
    """
    stock = MODELS.build(ConfigDict(copy.deepcopy(config), type=of))
    return cut_network(stock, shapes, skipped, attributes)
