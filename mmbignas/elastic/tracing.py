"""From a network to the plan of what can be dropped in it."""
from __future__ import annotations

import copy
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from mmbignas.elastic.axes import Atom, Fix, Node, Prod, Sum, atoms, freeze, normal
from mmbignas.elastic.conditions import quiet_run
from mmbignas.elastic.extensions import traced_extensions
from mmbignas.elastic.plan import Group, Plan, Run, axis_of
from mmbignas.elastic.rules import RULES, default_rule
from mmbignas.elastic.tracer import Tracer
from mmbignas.elastic.watching import Called, Watched, watching
from mmbignas.errors import ConfigError

OUTPUT = 'an output of the network'
UNPRODUCED = 'no convolution or linear layer makes it'
UNUSED = 'the forward pass does not use it'


class UncomputedError(ConfigError):
    """A network does not compute a batch.

    Args:
        message: the message.
        mode: in which mode.
    """

    def __init__(self, message: str, mode: str) -> None:
        super().__init__(message)
        self.mode = mode


def trace(model: nn.Module, batch: Mapping[str, Any]) -> Plan:
    """Trace a network: one forward pass in mode ``tensor``, and one in mode ``loss``.

    Args:
        model: the network in full width; it is left as it was.
        batch: what its ``forward`` takes, see :func:`~mmbignas.elastic.example.example_batches`.

    Returns:
        Plan: with all groups that the operations allow. Numbers in Python that stand for widths are not seen: see
        :func:`~mmbignas.elastic.verification.verified`.

    Raises:
        UncomputedError: when the forward pass fails.
    """
    tracer = Tracer(model, RULES, default_rule)
    watched = Watched()
    for mode in ('tensor', 'loss'):
        with quiet_run(model, training=mode == 'loss'), traced_extensions(tracer), watching(model, tracer, watched):
            data = copy.deepcopy(dict(batch))
            tracer.feed(data['inputs'])
            try:
                with tracer:
                    output = model(**data, mode=mode)
            except Exception as error:  # whatever a model may raise
                raise UncomputedError(
                    f"model must compute a batch in mode '{mode}' to be traced, but {tracer.path or 'the model'} "
                    f'raised {type(error).__name__}: {error}. If it needs other data, give a batch by '
                    "example='package.module.function'", mode) from error
            if mode == 'tensor':
                tracer.freeze_output(output, OUTPUT)
    return _plan(model, tracer, watched)


def _plan(model: nn.Module, tracer: Tracer, watched: Watched) -> Plan:
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    axes = {name: tracer.axes(tensor) for name, tensor in tensors.items()}
    produced: dict[Atom, list[str]] = defaultdict(list)
    unit: dict[Atom, int] = {}
    for node, path in tracer.produced:
        for atom, channels in _with_units(node):
            produced[atom] += [path] if path not in produced[atom] else []
            unit[atom] = min(unit.get(atom, channels), channels)
    used: dict[Atom, list[str]] = defaultdict(list)
    for name, nodes in axes.items():
        for atom in {atom: None for node in nodes for atom in atoms(node)}:
            path = name.rpartition('.')[0]
            used[atom] += [path] if path not in used[atom] else []
    for atom in list(used):
        if atom not in produced or atom.size < 2:
            freeze(atom, UNPRODUCED)
            del used[atom]
    names = _names([produced[atom] for atom in used])
    for atom, name in zip(used, names):
        atom.name = name
    elastic = {name: [axis_of(node) for node in nodes] for name, nodes in axes.items()
               if any(next(atoms(node), None) is not None for node in nodes)}
    attributes = {path: {name: axis_of(node) for name, node in own.items() if next(atoms(node), None) is not None}
                  for path, own in watched.attributes.items()}
    return Plan(
        model=type(model).__name__,
        groups={atom.name: Group(atom.size, unit[atom], produced[atom], paths) for atom, paths in used.items()},
        tensors=elastic, attributes={path: own for path, own in attributes.items() if own},
        runs=_runs(model, watched.calls), frozen=_frozen({name: axes[name] for name, _ in model.named_parameters()}),
        shapes={name: list(tensor.shape) for name, tensor in model.named_parameters(remove_duplicate=False)})


def _with_units(node: Node, inner: int = 1) -> Iterator[tuple[Atom, int]]:
    """The atoms of an axis, each with the number of channels that one of its positions stands for."""
    node = normal(node)
    if isinstance(node, Atom):
        yield node, inner
    elif isinstance(node, Sum):
        for part in node.parts:
            yield from _with_units(part, inner)
    elif isinstance(node, Prod):
        factors = list(node.factors)
        for place, own in enumerate(factors):
            fixed = [after.size for after in factors[place + 1:] if isinstance(after, Fix)]
            yield from _with_units(own, inner * math.prod(fixed))


def common_path(paths: Sequence[str]) -> str:
    """The longest path that all paths lie below."""
    parts = [path.split('.') for path in paths]
    common = []
    for names in zip(*parts):
        if len(set(names)) > 1:
            break
        common.append(names[0])
    return '.'.join(common)


def _names(producers: Sequence[Sequence[str]]) -> list[str]:
    """A name per group: the layer that makes it, or what all layers that make it have in common."""
    names = [common_path(paths) or 'model' for paths in producers]
    count, seen = Counter(names), Counter[str]()
    result = []
    for name in names:
        seen[name] += 1
        result.append(f'{name}:{seen[name]}' if count[name] > 1 else name)
    return result


def _frozen(axes: Mapping[str, Sequence[Node]]) -> dict[str, list[str]]:
    """Reasons for which channels stay -> axes of weights of several dimensions."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, nodes in axes.items():
        for dim, node in enumerate(nodes[:2] if len(nodes) > 1 else ()):
            own = normal(node)
            if isinstance(own, Fix) and own.reason and own.size > 1:
                found[own.reason].append(f'{name}[{dim}]')
    return dict(found)


def _runs(model: nn.Module, calls: Sequence[Called]) -> dict[str, Run]:
    """Siblings of one class that were called one after the other, each with the output of the one before."""
    modules = dict(model.named_modules())
    by_parent: dict[str, list[Called]] = defaultdict(list)
    seen: set[str] = set()
    for call in calls:
        if call.path not in seen:
            by_parent[call.path.rpartition('.')[0]].append(call)
            seen.add(call.path)
    runs: dict[str, Run] = {}
    for parent, own in by_parent.items():
        chains: list[list[Called]] = []
        for call in own:
            last = chains[-1][-1] if chains else None
            goes_on = last is not None and call.residual and last.left is call.entered and (
                type(modules[last.path]) is type(modules[call.path]))
            if goes_on:
                chains[-1].append(call)
            else:
                chains.append([call])
        chains = [chain for chain in chains if len(chain) > 1 and _is_dense(modules[chain[-1].path])]
        for chain in chains:
            names = [call.path.rpartition('.')[2] for call in (chain[0], chain[-1])]
            name = parent if len(chains) == 1 else f'{parent}.{"-".join(names)}'
            runs[name] = Run([call.path for call in chain], 0 if chain[0].residual else 1)
    return runs


def _is_dense(module: nn.Module) -> bool:
    """Whether a module has a convolution or linear layer."""
    return any(parameter.dim() > 1 for parameter in module.parameters())
