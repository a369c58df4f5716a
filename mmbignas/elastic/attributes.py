"""Attributes of Python in which a network keeps a width: attribute X of class Y follows axis Z.

An attribute that is not in the table keeps its value, and where it stands for a width, verification finds out that
the channels have to stay. To make them elastic, add a line::

    Adapter('mmdet.models.roi_heads.roi_extractors.base_roi_extractor.BaseRoIExtractor', dict(out_channels=output(1)))
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from mmbignas.elastic.axes import Node, Prod, divide, normal, unify
from mmbignas.elastic.tracer import Tracer
from mmbignas.utils.models import tensors_in

# From the tracer, a module, its arguments and its output to the axis that an attribute follows.
Source = Callable[[Tracer, nn.Module, list[Tensor], list[Tensor]], 'Node | None']


def given(axis: int, number: int = 0) -> Source:
    """An axis of the module's input.

    Args:
        axis: which.
        number: of the tensor among the arguments.
    """
    return lambda tracer, module, inputs, outputs: tracer.axes(inputs[number])[axis]


def level(number: int) -> Source:
    """The channels of a level of the pyramid that the module is given, if there is one of this number.

    Args:
        number: of the level.
    """

    def find(tracer: Tracer, module: nn.Module, inputs: list[Tensor], outputs: list[Tensor]) -> Node | None:
        levels = [tensor for tensor in inputs if tensor.dim() == 4]
        return tracer.axes(levels[number])[1] if number < len(levels) else None

    return find


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


def part(name: str, axis: int, sizes: Callable[[Any], Sequence[int]], first: int, last: int | None = None) -> Source:
    """Some of the axes that were joined into one, such as heads and channels per head.

    Args:
        name: path of a parameter below the module.
        axis: of the parameter.
        sizes: from the module to the sizes of all axes in it, outermost first.
        first: number of the first one.
        last: number of the one after the last; the innermost is the last if not given.
    """

    def find(tracer: Tracer, module: nn.Module, inputs: list[Tensor], outputs: list[Tensor]) -> Node | None:
        found = dict(module.named_parameters()).get(name)
        if found is None:
            return None
        return normal(Prod(divide(tracer.axes(found)[axis], sizes(module))[first:last]))

    return find


class Adapter(NamedTuple):
    """One line of the table.

    Args:
        cls: path of a class; its subclasses count too.
        follow: name of an attribute -> the axis that it follows.
        ties: pairs of axes that have the same positions, by the module's own assumptions.
        makes: axes of output channels that the module makes by weights of its own, though no convolution or linear
            layer does.
    """

    cls: str
    follow: dict[str, Source]
    ties: tuple[tuple[Source, Source], ...] = ()
    makes: tuple[Source, ...] = ()


LEVELS = 8  # of a pyramid, at most


def _heads(module: Any) -> tuple[int, int, int]:
    """Query, key and value; heads; channels per head."""
    return 3, module.num_heads, module.embed_dims // module.num_heads


def _torch_heads(module: Any) -> tuple[int, int, int]:
    return 3, module.num_heads, module.head_dim


HEADS, HEAD_WIDTH, ALL_HEADS = (part('qkv.weight', 0, _heads, 1, 2), part('qkv.weight', 0, _heads, 2),
                                part('qkv.weight', 0, _heads, 1))
# Where heads x channels per head are what comes in.
AS_GIVEN = ((ALL_HEADS, parameter('qkv.weight', 1)),)

ADAPTERS: list[Adapter] = [
    # A level where no region of the example falls is as wide as the others.
    Adapter('mmdet.models.roi_heads.roi_extractors.base_roi_extractor.BaseRoIExtractor', dict(out_channels=output(1)),
            tuple((level(0), level(number)) for number in range(1, LEVELS))),
    Adapter('mmdet.models.backbones.res2net.Bottle2neck', dict(width=parameter('convs.0.weight', 1))),
    Adapter('mmpretrain.models.backbones.res2net.Bottle2neck', dict(width=parameter('convs.0.weight', 1))),
    Adapter('mmpretrain.models.utils.attention.MultiheadAttention',
            dict(num_heads=HEADS, head_dims=HEAD_WIDTH, embed_dims=ALL_HEADS)),
    Adapter('mmpretrain.models.utils.attention.WindowMSA', dict(num_heads=HEADS, embed_dims=ALL_HEADS), AS_GIVEN),
    Adapter('mmpretrain.models.utils.attention.WindowMSAV2', dict(num_heads=HEADS, embed_dims=ALL_HEADS), AS_GIVEN),
    Adapter('mmpretrain.models.utils.attention.BEiTAttention', dict(num_heads=HEADS, embed_dims=ALL_HEADS), AS_GIVEN),
    Adapter('mmdet.models.backbones.swin.WindowMSA', dict(num_heads=HEADS, embed_dims=ALL_HEADS), AS_GIVEN),
    Adapter('mmcv.ops.multi_scale_deform_attn.MultiScaleDeformableAttention',
            dict(num_heads=part('value_proj.weight', 0, lambda module: _heads(module)[1:], 0, 1))),
    # Each feature of the tower is as wide as what is made of all of them.
    Adapter('mmdet.models.dense_heads.tood_head.TaskDecomposition',
            dict(feat_channels=parameter('reduction_conv.conv.weight', 0),
                 in_channels=parameter('reduction_conv.conv.weight', 1)),
            ((parameter('reduction_conv.conv.weight', 0), part(
                'reduction_conv.conv.weight', 1, lambda module: (module.stacked_convs, module.feat_channels), 1)),),
            (parameter('reduction_conv.conv.weight', 0),)),
    Adapter('torch.nn.modules.activation.MultiheadAttention', dict(
        num_heads=part('in_proj_weight', 0, _torch_heads, 1, 2), head_dim=part('in_proj_weight', 0, _torch_heads, 2),
        embed_dim=parameter('in_proj_weight', 1), kdim=parameter('in_proj_weight', 1),
        vdim=parameter('in_proj_weight', 1)),
            ((part('in_proj_weight', 0, _torch_heads, 1), parameter('in_proj_weight', 1)),)),
]


def adapters_of(module: nn.Module) -> Iterator[Adapter]:
    """The lines of the table that are about a module."""
    names = {f'{base.__module__}.{base.__qualname__}' for base in type(module).__mro__}
    for adapter in ADAPTERS:
        if adapter.cls in names:
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
    inputs, outputs = tensors_in(args), tensors_in(made)
    for adapter in adapters_of(module):
        reason = f'{adapter.cls.rpartition(".")[2]} in {tracer.path or "the model"}'
        for pair in adapter.ties:
            one, other = (source(tracer, module, inputs, outputs) for source in pair)
            if one is not None and other is not None:
                unify(one, other, reason)
        for source in adapter.makes:
            node = source(tracer, module, inputs, outputs)
            if node is not None:
                tracer.produced.append((node, tracer.path))
        for name, source in adapter.follow.items():
            node = source(tracer, module, inputs, outputs)
            if node is not None and hasattr(module, name):
                found[name] = node
    return found
