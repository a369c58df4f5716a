"""Where the MACs of a network are, and which of its layers can get narrower."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from mmbignas.elastic.conditions import quiet_run, run
from mmbignas.elastic.elastic_layer import ElasticLayer
from mmbignas.supernet import Supernet


@dataclass
class LayerProfile:
    """A convolution or linear layer of a network.

    Args:
        path: its path in the network.
        macs: multiply-adds in full width for one batch, over all of its calls.
        channels: output channels in full width.
        least: output channels in the smallest subnet; 0 where that leaves the layer out.
        is_elastic: whether its input or output gets narrower in some subnet, or a subnet leaves it out.
    """

    path: str
    macs: int
    channels: int
    least: int
    is_elastic: bool


def profile(model: nn.Module, batch: Mapping[str, Any]) -> list[LayerProfile]:
    """The convolutions and linear layers of an elastic network, in the order in which they are called.

    Args:
        model: the network; its current subnet is put back.
        batch: what its ``forward`` takes in mode ``tensor``.

    Returns:
        list: of layers that are called as modules. Others, such as the projections inside of
        ``nn.MultiheadAttention``, are not seen.
    """
    supernet = Supernet(model)
    before = supernet.current
    macs: dict[str, int] = {}

    def count(path: str, layer: Any, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor) and isinstance(layer.weight, Tensor):
            positions = (inputs[0] if getattr(layer, 'transposed', False) else output)
            channels = layer.weight.shape[0]
            macs[path] = macs.get(path, 0) + positions.numel() // channels * layer.weight.numel()

    handles = [module.register_forward_hook(partial(count, path)) for path, module in model.named_modules()
               if _is_dense(module)]
    try:
        supernet.apply(supernet.space.max())
        with quiet_run(model):
            run(model, batch, 'tensor')
        modules = dict(model.named_modules())
        full = {path: (modules[path].weight.shape, _channels(modules[path])) for path in macs}
        supernet.apply(supernet.space.min())
        left_out = [path for path, module in modules.items() if not getattr(module, 'is_active', True)]
        layers = []
        for path, amount in macs.items():
            shape, channels = full[path]
            gone = any(path == other or path.startswith(f'{other}.') for other in left_out)
            layer: Any = modules[path]
            narrow = isinstance(layer, ElasticLayer) and layer.weight.shape != shape
            layers.append(LayerProfile(path, amount, channels, 0 if gone else _channels(layer), gone or narrow))
        return layers
    finally:
        for handle in handles:
            handle.remove()
        supernet.apply(before)


def elastic_share(layers: list[LayerProfile]) -> float:
    """The share of the MACs that lies in layers that can get narrower or be left out, from 0 to 1."""
    return sum(layer.macs for layer in layers if layer.is_elastic) / max(sum(layer.macs for layer in layers), 1)


def _is_dense(module: nn.Module) -> bool:
    """Whether a module is a convolution or a linear layer, also of MMCV."""
    weight = module._parameters.get('weight')
    return weight is not None and weight.dim() > 1 and (hasattr(module, 'out_channels')
                                                        or hasattr(module, 'out_features'))


def _channels(layer: Any) -> int:
    return int(layer.out_channels if hasattr(layer, 'out_channels') else layer.out_features)
