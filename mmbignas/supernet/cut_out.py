"""From a supernet to one of its subnets as an ordinary network: its config and its weights."""
from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from mmbignas.ops import DynamicLayer
from mmbignas.space import ImageSize, Subnet
from mmbignas.supernet.supernet import Supernet, probe


def subnet_config(model_cfg: Mapping[str, Any], model: nn.Module, subnet: Subnet,
                  image_size: ImageSize | None = None) -> dict[str, Any]:
    """The config of the plain network that a subnet is, without any space.

    Every searchable module's elements become lists of numbers. Every ``in_channels`` of the config becomes the width
    that really arrives there, as observed in a forward pass of a small image. So a config from outside this package
    needs no rule of its own. The config of an elastic network builds the stock network and cuts it.

    Args:
        model_cfg: the supernet's model config. A searchable module's config stands at the module's path in it.
        model: the supernet that was built from it, or a wrapper such as DDP around it; it is left as it was.
        subnet: a canonical subnet.
        image_size: height and width in pixels of the images that the model is for, if they are known; it need not take
            others then.
    """
    supernet = Supernet(model)
    elastic: Any = getattr(supernet.model, 'elastic', None)
    if hasattr(elastic, 'subnet_config'):
        before = supernet.current
        try:
            supernet.apply(subnet)
            return elastic.subnet_config(supernet.model, model_cfg)
        finally:
            supernet.apply(before)
    config = copy.deepcopy(dict(model_cfg))
    for path, elements in subnet.items():
        _node(config, path).update({name: list(values) for name, values in elements.items()})
    for path, width in _input_widths(config, supernet, subnet, image_size).items():
        _node(config, path)['in_channels'] = width
    return config


def _node(config: Any, path: str) -> Any:
    for name in path.split('.') if path else ():
        config = config[int(name)] if isinstance(config, Sequence) else config[name]
    return config


def _widths(value: Any) -> int | list[int] | None:
    """Channels of a feature, or of each feature in a list."""
    if isinstance(value, Tensor):
        return value.shape[1]
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, Tensor) for item in value):
        return [item.shape[1] for item in value]
    return None


def _input_widths(config: Mapping[str, Any], supernet: Supernet, subnet: Subnet,
                  image_size: ImageSize | None) -> dict[str, int | list[int]]:
    """Path of each config node that has ``in_channels`` -> the width or widths of its module's input."""
    widths: dict[str, int | list[int]] = {}

    def record(path: str, many: bool) -> Any:
        def hook(module: nn.Module, inputs: tuple) -> None:
            found = _widths(inputs[0]) if inputs else None
            if isinstance(found, list) and not many and len(set(found)) == 1:
                found = found[0]
            if found is not None and isinstance(found, list) == many:
                widths.setdefault(path, found)
        return hook

    handles = []
    for path, module in supernet.model.named_modules():
        try:
            node = _node(config, path) if path else {}
        except (KeyError, IndexError, TypeError, ValueError):
            continue
        if isinstance(node, Mapping) and 'in_channels' in node:
            hook = record(path, isinstance(node['in_channels'], Sequence))
            # MMDetection calls a head's forward as a method, which fires no hook of the head: the first of its
            # layers to be called tells the same.
            handles += [part.register_forward_pre_hook(hook) for part in module.modules()]
    try:
        probe(supernet, subnet, image_size)
    finally:
        for handle in handles:
            handle.remove()
    return widths


def subnet_state_dict(supernet: nn.Module, plain: nn.Module) -> dict[str, Tensor]:
    """A complete state dict of a plain network, sliced out of its supernet.

    Parameters correspond by name. Each dynamic layer knows how its plain counterpart's state follows from its own;
    all other entries must have equal shapes.

    Args:
        supernet: the supernet, with any subnet applied, or a wrapper such as DDP around it. An elastic network needs
            the very subnet applied.
        plain: the plain network; only its names and shapes are used.

    Raises:
        ValueError: for an entry that the supernet lacks or has in another shape.
    """
    supernet = Supernet(supernet).model
    elastic: Any = getattr(supernet, 'elastic', None)
    if hasattr(elastic, 'subnet_state'):
        return _checked(elastic.subnet_state(supernet), plain, 'the subnet that is applied')
    layers: dict[str, dict[str, Tensor]] = {}
    for key, value in plain.state_dict().items():
        path, _, name = key.rpartition('.')
        layers.setdefault(path, {})[name] = value
    source, state = supernet.state_dict(), dict[str, Tensor]()
    for path, entries in layers.items():
        try:
            module = supernet.get_submodule(path)
        except AttributeError:
            raise ValueError(f'the supernet has no module {path}') from None
        if isinstance(module, DynamicLayer):
            try:
                values = module.subnet_state({name: tuple(value.shape) for name, value in entries.items()})
            except ValueError as error:
                raise ValueError(f'{path}: {error}') from None
        else:
            keys = {name: f'{path}.{name}' if path else name for name in entries}
            values = {name: source[key].detach().clone() for name, key in keys.items() if key in source}
        state.update({f'{path}.{name}' if path else name: value for name, value in values.items()})
    return _checked(state, plain, 'the supernet')


def _checked(state: dict[str, Tensor], plain: nn.Module, where: str) -> dict[str, Tensor]:
    """A state dict, if it has the names and shapes of the plain network; ``where`` it comes from is for messages."""
    expected = plain.state_dict()
    for key, value in expected.items():
        if key not in state:
            raise ValueError(f'{where} has no {key}')
        if state[key].shape != value.shape:
            raise ValueError(f'{key} has shape {tuple(state[key].shape)} in {where}, but {tuple(value.shape)} in the '
                             'plain network')
    unknown = next((key for key in state if key not in expected), None)
    if unknown is not None:
        raise ValueError(f'the plain network has no {unknown}')
    return state
