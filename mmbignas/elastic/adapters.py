"""Attributes of Python in which a network keeps a width: attribute X of class Y follows axis Z.

An attribute that is not in the table keeps its value, and where it stands for a width, verification finds out that
the channels have to stay. To make them elastic, add a line::

    Adapter('mmdet.models.roi_heads.roi_extractors.base_roi_extractor.BaseRoIExtractor', 'out_channels', output(1))
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from torch import Tensor, nn

from mmbignas.elastic.axes import Node
from mmbignas.elastic.tracer import Tracer
from mmbignas.tensors import tensors_in

# From the tracer, a module, its arguments and its output to the axis that an attribute follows.
Source = Callable[[Tracer, nn.Module, list[Tensor], list[Tensor]], 'Node | None']


def given(axis: int, number: int = 0) -> Source:
    """An axis of the module's input.

    Args:
        axis: which.
        number: of the tensor among the arguments.
    """
    return lambda tracer, module, inputs, outputs: tracer.axes(inputs[number])[axis]


def output(axis: int, number: int = 0) -> Source:
    """An axis of what the module returns.

    Args:
        axis: which.
        number: of the tensor among the outputs.
    """
    return lambda tracer, module, inputs, outputs: tracer.axes(outputs[number])[axis]


def parameter(name: str, axis: int) -> Source:
    """An axis of a parameter of the module.

    Args:
        name: path of the parameter below the module.
        axis: which.
    """

    def find(tracer: Tracer, module: nn.Module, inputs: list[Tensor], outputs: list[Tensor]) -> Node | None:
        found = dict(module.named_parameters()).get(name)
        return None if found is None else tracer.axes(found)[axis]

    return find


class Adapter(NamedTuple):
    """One line of the table.

    Args:
        cls: path of a class; its subclasses count too.
        attribute: name of the attribute.
        source: the axis that it follows.
    """

    cls: str
    attribute: str
    source: Source


ADAPTERS: list[Adapter] = [
    Adapter('mmdet.models.roi_heads.roi_extractors.base_roi_extractor.BaseRoIExtractor', 'out_channels', output(1)),
    Adapter('mmdet.models.backbones.res2net.Bottle2neck', 'width', parameter('convs.0.weight', 0)),
    Adapter('mmpretrain.models.backbones.res2net.Bottle2neck', 'width', parameter('convs.0.weight', 0)),
]


def adapters_of(module: nn.Module) -> Iterator[Adapter]:
    """The lines of the table that are about a module."""
    names = {f'{base.__module__}.{base.__qualname__}' for base in type(module).__mro__}
    for adapter in ADAPTERS:
        if adapter.cls in names and hasattr(module, adapter.attribute):
            yield adapter


def followed(tracer: Tracer, module: nn.Module, args: Any, made: Any) -> dict[str, Node]:
    """The axes that a module's attributes follow, after it was called.

    Args:
        tracer: the tracer.
        module: the module.
        args: positional and keyword arguments.
        made: what it returned.

    Returns:
        dict: name of the attribute -> axis.
    """
    found = {}
    for adapter in adapters_of(module):
        node = adapter.source(tracer, module, tensors_in(args), tensors_in(made))
        if node is not None:
            found[adapter.attribute] = node
    return found
