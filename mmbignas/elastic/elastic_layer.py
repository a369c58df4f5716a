"""Layers that compute with the channels in use, under the keys and with the parameters of the stock network.

``make_elastic(module)`` gives a module another class: a subclass of its own class, with a property per parameter or
buffer that has channels to drop. The stock ``forward``, and whatever else reads ``module.weight``, gets the part in
use; state dict, optimizer and EMA, which go by ``module._parameters``, see the whole.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmbignas.elastic.axes import Atom, Node, atoms, positions, width
from mmbignas.elastic.cut import Numbers
from mmbignas.elastic.taking import Taking
from mmbignas.ops.dynamic_layer import DynamicLayer

STATISTICS = ('running_mean', 'running_var')


class LayerCut:
    """A layer at some widths.

    Args:
        taking: name of a parameter or buffer -> its positions in use; of those that are used whole, nothing.
        numbers: attributes that follow, such as ``out_channels``.
        shapes: of all parameters and buffers.

    Attributes:
        copied: statistics of which the part in use is a copy.
    """

    def __init__(self, taking: Mapping[str, Taking], numbers: Mapping[str, Any],
                 shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.taking, self.numbers, self.shapes = dict(taking), dict(numbers), dict(shapes)
        self.copied = [name for name in STATISTICS if name in taking and not taking[name].is_view]


class LayerPlan:
    """What can be dropped in one module; shared by all copies of it.

    Args:
        module: the module in full width.
        tensors: name of each of its parameters and buffers with channels to drop -> nodes of its axes.
        attributes: name of an attribute that follows an axis -> the node.

    Attributes:
        atoms: the groups that the module has.
    """

    def __init__(self, module: nn.Module, tensors: Mapping[str, Sequence[Node]],
                 attributes: Mapping[str, Node] | None = None) -> None:
        self.tensors = {name: tuple(nodes) for name, nodes in tensors.items()}
        self._attributes = dict(attributes or {})
        nodes = [node for axes in self.tensors.values() for node in axes] + list(self._attributes.values())
        self.atoms: tuple[Atom, ...] = tuple(dict.fromkeys(atom for node in nodes for atom in atoms(node)))
        own = [*module._parameters.items(), *module._buffers.items()]
        self._full = {name: tuple(value.shape) for name, value in own if value is not None}
        self._numbers = Numbers.of(module)
        self._cuts: dict[tuple[int, ...], LayerCut] = {}

    def __deepcopy__(self, memo: Any) -> LayerPlan:
        return self

    def shapes(self, widths: Mapping[Atom, int]) -> dict[str, tuple[int, ...]]:
        """Shapes of all parameters and buffers at some widths."""
        return {**self._full, **{name: tuple(width(node, widths) for node in nodes)
                                 for name, nodes in self.tensors.items()}}

    def cut(self, widths: tuple[int, ...] | None = None) -> LayerCut:
        """The layer at some widths, the first positions of each group being in use.

        Args:
            widths: per group of :attr:`atoms`, the number of positions in use; in full width if not given.
        """
        if widths is None:
            widths = tuple(atom.size for atom in self.atoms)
        found = self._cuts.get(widths)
        if found is None:
            found = self._cuts[widths] = self._make(dict(zip(self.atoms, widths)))
        return found

    def _make(self, widths: Mapping[Atom, int]) -> LayerCut:
        kept = {atom: np.arange(size) for atom, size in widths.items()}
        taking = {}
        for name, nodes in self.tensors.items():
            index = [None if width(node, widths) == node.size else positions(node, kept) for node in nodes]
            if any(own is not None for own in index):
                taking[name] = Taking(index, self._full[name])
        shapes = self.shapes(widths)
        attributes = {name: width(node, widths) for name, node in self._attributes.items()}
        return LayerCut(taking, {**self._numbers(shapes), **attributes}, shapes)


class Moment:
    """One forward pass of a model, in which a layer that is called several times takes its parameters once.

    Attributes:
        taken: what was taken in the pass that is under way; ``None`` between passes.
    """

    def __init__(self) -> None:
        self.taken: dict[tuple[int, str, bool], Tensor] | None = None

    def begin(self, *args: Any) -> None:
        """A forward pass begins; a forward pre-hook of the model."""
        self.taken = {}

    def end(self, *args: Any) -> None:
        """It is over; a forward hook of the model, also called after an exception."""
        self.taken = None

    def __deepcopy__(self, memo: Any) -> Moment:
        return Moment()

    def __getstate__(self) -> dict[str, Any]:
        return {'taken': None}


class ElasticLayer(DynamicLayer):
    """What a module's class is given in front of its own; see :func:`make_elastic`.

    Attributes:
        is_active: False in a block that the current subnet leaves out: it hands on its first argument.
        synchronised: whether an ``nn.SyncBatchNorm`` goes by all processes' statistics; BN calibration wants its own.
    """

    is_active = True
    synchronised = True
    shapes_follow_input = False
    _elastic: LayerPlan
    _cut: LayerCut
    _moment: Moment

    @property
    def elastic_plan(self) -> LayerPlan:
        """What can be dropped in the module."""
        return self._elastic

    def apply_widths(self, widths: tuple[int, ...]) -> None:
        """Compute with the first positions of each group from now on.

        Args:
            widths: per group of the plan's ``atoms``, the number of positions in use.
        """
        own = self.__dict__
        plan = own['_elastic']
        cut = plan._cuts.get(widths) or plan.cut(widths)
        if cut is not own['_cut']:
            own['_cut'] = cut
            if cut.numbers:
                own.update(cut.numbers)

    def plain_shapes(self, input_shape: Sequence[int] = ()) -> dict[str, tuple[int, ...]]:
        return {name: shape for name, shape in self._cut.shapes.items() if name in self._parameters}

    def subnet_state(self, shapes: Mapping[str, Sequence[int]] | None = None) -> dict[str, Tensor]:
        """The state of the plain layer that computes what this one does now.

        Args:
            shapes: names that are wanted, with their shapes; all if not given.

        Raises:
            ValueError: for shapes that are not those of the current subnet.
        """
        own = [name for name, value in [*self._parameters.items(), *self._buffers.items()] if value is not None]
        state = {name: self.part_in_use(name) for name in own if shapes is None or name in shapes}
        for name, shape in (shapes or {}).items():
            if name in state and tuple(state[name].shape) != tuple(shape):
                raise ValueError(f'{name} has shape {tuple(state[name].shape)} in the current subnet, not '
                                 f'{tuple(shape)}')
        return state

    def part_in_use(self, name: str) -> Tensor:
        """A copy of the positions of a parameter or buffer that the current subnet uses."""
        value = self._parameters[name] if name in self._parameters else self._buffers[name]
        assert value is not None
        taking = self._cut.taking.get(name)
        return (value if taking is None else taking.gather(value)).detach().clone()

    @property
    def shapes_in_use(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes of all parameters and buffers as the current subnet uses them."""
        return self._cut.shapes

    @property
    def numbers_in_use(self) -> Mapping[str, Any]:
        """Attributes that follow, such as ``out_channels``."""
        return self._cut.numbers

    def channels_in_use(self, name: str, count: int) -> slice | Tensor:
        taking = self._cut.taking.get(name)
        return super().channels_in_use(name, count) if taking is None else taking.positions(0)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The stock forward, or nothing at all where the block is left out."""
        if not self.is_active:
            return args[0] if args else next(iter(kwargs.values()))
        forward = super().forward
        if not self.synchronised and isinstance(self, nn.SyncBatchNorm):
            forward = partial(_BatchNorm.forward, self)
        copied = self._cut.copied
        if not copied or not self.training:
            return forward(*args, **kwargs)
        # Statistics in pieces are copies, which the layer moves.
        held = {name: self._cut.taking[name].gather(self._buffers[name]) for name in copied}  # type: ignore[arg-type]
        vars(self)['_held'] = held
        try:
            return forward(*args, **kwargs)
        finally:
            del vars(self)['_held']
            for name, values in held.items():
                self._cut.taking[name].put(self._buffers[name], values)  # type: ignore[arg-type]

    def __reduce_ex__(self, protocol: Any) -> Any:
        base, names = type(self).stock_class, type(self).elastic_names  # type: ignore[attr-defined]
        return _rebuild, (base, names), self.__getstate__() if hasattr(self, '__getstate__') else vars(self)


def _rebuild(base: type[nn.Module], names: tuple[str, ...]) -> nn.Module:
    """An elastic module without its contents, of which copying and unpickling put in what they have."""
    cls = _elastic_class(base, names)
    return cls.__new__(cls)


def _in_use(name: str) -> property:
    """The part in use of a parameter or buffer."""

    def get(self: ElasticLayer) -> Tensor | None:
        own = vars(self)
        full = own['_parameters'][name] if name in own['_parameters'] else own['_buffers'][name]
        taking = own['_cut'].taking.get(name)
        if taking is None or full is None:
            return full
        if '_held' in own and name in own['_held']:
            return own['_held'][name]
        taken = own['_moment'].taken
        if taken is None or taking.is_view:
            return taking.take(full)
        key = id(self), name, torch.is_grad_enabled()
        found = taken.get(key)
        if found is None:
            found = taken[key] = taking.take(full)
        return found

    return property(get)


_CLASSES: dict[Any, type[nn.Module]] = {}


def _elastic_class(base: type[nn.Module], names: tuple[str, ...]) -> type[nn.Module]:
    """The elastic subclass of a class, with properties of these names."""
    if (base, names) not in _CLASSES:
        _CLASSES[base, names] = _make_class(base, names)
    return _CLASSES[base, names]


def _make_class(base: type[nn.Module], names: tuple[str, ...]) -> type[nn.Module]:
    # Named like the stock class and with its bases: MMEngine's init_cfg finds layers by these names.
    bases: tuple[type, ...] = (ElasticLayer, base, *(other for other in base.__bases__ if other is not object))
    namespace = {name: _in_use(name) for name in names}
    return type(base.__name__, bases, {**namespace, '__module__': base.__module__, '__doc__': base.__doc__,
                                       'stock_class': base, 'elastic_names': names})


def make_elastic(module: nn.Module, plan: LayerPlan, moment: Moment) -> None:
    """Give a module the power to compute with a part of its channels, or to be left out.

    Args:
        module: the module, which stays what it is: same parameters, state-dict keys, hooks and class, but for a
            subclass.
        plan: what can be dropped in it.
        moment: of the model.
    """
    base = getattr(type(module), 'stock_class', type(module))
    vars(module).update(_elastic=plan, _cut=plan.cut(), _moment=moment)
    module.__class__ = _elastic_class(base, tuple(plan.tensors))


def stock_class(module: nn.Module) -> type[nn.Module]:
    """The class that a module had before it was made elastic."""
    return getattr(type(module), 'stock_class', type(module))
