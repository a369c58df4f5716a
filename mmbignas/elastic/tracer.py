"""Following the axes of all tensors through a forward pass.

The network runs once, eagerly, on real tensors; a ``TorchDispatchMode`` sees every operation of torch that it comes
down to. Each axis of a parameter or buffer begins as an :class:`~mmbignas.elastic.axes.Atom`, each axis of other data
as a :class:`~mmbignas.elastic.axes.Fix`. Per operation there is a rule (see :mod:`mmbignas.elastic.rules`) that says
which axes of its inputs have the same positions, and what the axes of its output are. Where there is none, the inputs
are frozen, and operation and module are written down as the reason.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmbignas.elastic.axes import Atom, Fix, Node, atoms, freeze, normal, unify
from mmbignas.utils.models import tensors_in

Axes = list[Node]


class Call:
    """One operation that was called, as its rule sees it.

    ``call['name']`` is the argument of that name in the operation's schema, its default where it was not given.

    Args:
        tracer: the tracer.
        func: the operation.
        args, kwargs: what it was called with.
        output: what it returned.

    Attributes:
        name: of the operation, e.g. ``aten::convolution``.
        reason: operation and module, as the reason where something gets fixed.
    """

    def __init__(self, tracer: Tracer, func: Any, args: Sequence[Any], kwargs: dict[str, Any], output: Any) -> None:
        self._tracer, self._func, self._args, self._kwargs = tracer, func, args, kwargs
        self.output = output
        self.name: str = func._schema.name
        self.reason = f'{self.name} in {tracer.path or "the model"}'

    def __getitem__(self, name: str) -> Any:
        for index, argument in enumerate(self._func._schema.arguments):
            if argument.name == name:
                if index < len(self._args):
                    return self._args[index]
                return self._kwargs.get(name, argument.default_value)
        raise KeyError(f'{self.name} has no argument {name}')

    def axes(self, tensor: Tensor) -> Axes:
        """The nodes of a tensor's axes."""
        return self._tracer.axes(tensor)

    def inputs(self) -> list[Tensor]:
        """All tensors among the arguments."""
        return tensors_in((list(self._args), self._kwargs))

    def unify(self, first: Node, second: Node) -> None:
        """Say that two axes have the same positions."""
        unify(first, second, self.reason)

    def freeze(self, *nodes: Node) -> None:
        """Let all positions of some axes stay."""
        for node in nodes:
            freeze(node, self.reason)

    def fixed(self, size: int) -> Fix:
        """An axis that this operation makes, of which all positions stay."""
        return Fix(size, self.reason)

    def is_data(self, tensor: Tensor) -> bool:
        """Whether a tensor follows from the network's input, not from parameters alone."""
        return self._tracer.is_data(tensor)

    def produces(self, node: Node) -> None:
        """Say that this axis is one of output channels of a dense layer, which can be made with fewer of them."""
        self._tracer.produced.append((node, self._tracer.path))


Rule = Callable[[Call], Any]

CREATING: set[Rule] = set()  # rules of operations that make a tensor out of nothing
INPUT = 'an input of the network'
SUMS = ('aten::add', 'aten::add_')
# Beside what torch tags as pointwise.
KEEPING = ('aten::view', 'aten::_unsafe_view', 'aten::permute', 'aten::transpose', 'aten::expand', 'aten::slice',
           'aten::native_batch_norm', 'aten::native_layer_norm', 'aten::native_group_norm', 'aten::native_dropout',
           'aten::detach', 'aten::alias', 'aten::_to_copy', 'aten::hardswish', 'aten::hardswish_', 'aten::leaky_relu_')


class Tracer(TorchDispatchMode):
    """Follows the axes of a model's tensors while it is active.

    Args:
        model: the model.
        rules: name of an operation -> its rule.
        default: the rule of operations that elementwise or other tags tell; ``None`` where there is none.
        known: name of a parameter or buffer -> its axes, where a plan is there already; all others are then fixed.

    Attributes:
        path: of the module that is being computed.
        paused: whether operations are passed over for now, since whoever calls them knows what comes out.
        produced: axes of output channels of dense layers, with the paths of the layers.
    """

    def __init__(self, model: nn.Module, rules: dict[str, Rule], default: Callable[[Any], Rule | None],
                 known: Mapping[str, Sequence[Node]] | None = None) -> None:
        super().__init__()
        self._rules, self._default = rules, default
        self._axes: dict[int, Axes] = {}
        self._alive: list[Any] = []  # ids stay theirs
        self._data: set[int] = set()
        self._carried: dict[int, frozenset[int]] = {}
        self._stack: list[str] = []
        self.model = model
        self.paused = False
        self.produced: list[tuple[Node, str]] = []
        self.owned: dict[int, str] = {}
        for name, tensor in [*model.named_parameters(remove_duplicate=False),
                             *model.named_buffers(remove_duplicate=False)]:
            if id(tensor) not in self._axes:
                self._alive.append(tensor)
                self.owned[id(tensor)] = name
                if known is not None:
                    self._axes[id(tensor)] = list(known.get(name) or [Fix(size) for size in tensor.shape])
                else:
                    self._axes[id(tensor)] = [Atom(size, f'{name}.{dim}') if size > 1 else Fix(size)
                                              for dim, size in enumerate(tensor.shape)]

    @property
    def path(self) -> str:
        return self._stack[-1] if self._stack else ''

    def enter(self, path: str) -> None:
        """The module at ``path`` is being computed from now on."""
        self._stack.append(path)

    def leave(self) -> None:
        """It has been computed."""
        self._stack.pop()

    def axes(self, tensor: Tensor) -> Axes:
        """The nodes of a tensor's axes; of a tensor that is met for the first time, fixed ones."""
        known = self._axes.get(id(tensor))
        if known is None or len(known) != tensor.dim():
            known = self._axes[id(tensor)] = [Fix(size) for size in tensor.shape]
            self._alive.append(tensor)
        return known

    def is_data(self, tensor: Tensor) -> bool:
        """Whether a tensor follows from the network's input."""
        return id(tensor) in self._data

    def feed(self, value: Any) -> None:
        """Take the tensors in ``value`` for input of the network."""
        for tensor in tensors_in(value):
            self.give(tensor, [Fix(size, INPUT) for size in tensor.shape])

    def give(self, tensor: Tensor, axes: Axes) -> None:
        """Say what the axes of a tensor are that follows from the network's input."""
        self._alive.append(tensor)
        self._data.add(id(tensor))
        self._axes[id(tensor)] = [normal(node) for node in axes]

    def freeze_output(self, value: Any, reason: str) -> None:
        """Let all channels of the tensors in ``value`` stay."""
        for tensor in tensors_in(value):
            for node in self.axes(tensor):
                freeze(node, reason)

    def _carry(self, func: Any, inputs: Sequence[Tensor], made: Sequence[Tensor]) -> None:
        """Write down what an output still holds: of a sum all, of what goes element by element its first operand."""
        name = func._schema.name
        if name in SUMS:
            held = inputs
        elif inputs and (torch.Tag.pointwise in func.tags or name in KEEPING):
            held = inputs[:1]
        else:
            return
        own = frozenset().union(*({id(tensor)} | self._carried.get(id(tensor), frozenset()) for tensor in held))
        self._carried[id(made[0])] = self._carried.get(id(made[0]), frozenset()) | own

    def holds(self, output: Tensor, tensor: Tensor) -> bool:
        """Whether an output is a sum with ``tensor`` as a summand, perhaps normalised or activated since."""
        return id(tensor) in self._carried.get(id(output), ())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.paused:
            return func(*args, **kwargs)
        inputs = tensors_in((list(args), kwargs))
        before = [list(self.axes(tensor)) for tensor in inputs]
        output = func(*args, **kwargs)
        made = tensors_in(output)
        if not made:
            return output
        call = Call(self, func, args, kwargs, output)
        if any(self.is_data(tensor) for tensor in inputs):
            self._data.update(map(id, made))
        self._alive += made
        self._carry(func, inputs, made)
        rule = self._rules.get(call.name) or self._default(func)
        free = any(next(atoms(node), None) is not None for axes in before for node in axes)
        found: Any = None
        if rule is None:
            for node in (node for axes in before for node in axes):
                freeze(node, f'there is no rule for {call.reason}')
        elif free or rule in CREATING:
            found = rule(call)
        for tensor, axes in zip(made, self._per_output(found, made, call)):
            self._give(tensor, axes, call)
        return output

    def _per_output(self, found: Any, made: list[Tensor], call: Call) -> list[Axes]:
        """What a rule said, as the axes of each output."""
        if found is None:
            found = [None] * len(made)
        elif len(made) == 1 and not (found and isinstance(found[0], (list, type(None)))):
            found = [found]
        assert len(found) == len(made), f'the rule of {call.name} has {len(found)} outputs instead of {len(made)}'
        return [[call.fixed(size) for size in tensor.shape] if axes is None else axes
                for axes, tensor in zip(found, made)]

    def _give(self, tensor: Tensor, axes: Axes, call: Call) -> None:
        sizes = [node.size for node in axes]
        assert sizes == list(tensor.shape), f'the rule of {call.name} says {sizes} of a {tuple(tensor.shape)}'
        if id(tensor) in self.owned:  # in place, in a parameter or buffer
            for old, new in zip(self._axes[id(tensor)], axes):
                call.unify(old, new)
            return
        self._axes[id(tensor)] = [normal(node) for node in axes]


