"""What a subnet of an elastic network costs, as a sum of products of widths.

The network is run once in full width, on shapes alone. Each operation that costs something costs a product of sizes
(see :mod:`mmbignas.cost.operation_counter`), and the plan says which of these sizes is the width of which groups. So an
operation becomes a product of a number and widths, and a subnet's cost the sum of these products, without running it.
"""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmbignas.cost.liveness import Condition, Operations, custom_functions
from mmbignas.cost.operation_counter import MACS, OTHERS, TRANSPARENT, Rounded, call_inside
from mmbignas.elastic.axes import Atom, Fix, Node, atoms, normal, width
from mmbignas.elastic.extensions import traced_extensions
from mmbignas.elastic.genes import DepthGene, WidthGene
from mmbignas.elastic.plan import Plan, node_of
from mmbignas.elastic.rules import RULES, default_rule
from mmbignas.elastic.tracer import Tracer
from mmbignas.elastic.watching import watching
from mmbignas.supernet.forward_inputs import forward_inputs


class Product:
    """A number times widths of axes.

    Args:
        factor: the number.
        nodes: the axes.

    Attributes:
        finish: what to do with the product in the end, if anything.
    """

    finish: Callable[[int], int] | None = None

    def __init__(self, factor: int, nodes: tuple[Node, ...] = ()) -> None:
        self.factor, self.nodes = factor, nodes

    def value(self, widths: Mapping[Atom, int]) -> int:
        """The product where groups have these widths."""
        amount = self.factor
        for node in self.nodes:
            amount *= width(node, widths)
        return amount if self.finish is None else self.finish(amount)

    def __mul__(self, other: Any) -> Product:
        if isinstance(other, Product):
            return Product(self.factor * other.factor, self.nodes + other.nodes)
        return Product(self.factor * other, self.nodes)

    __rmul__ = __mul__


class Shaped:
    """A tensor of which only the shape is known, as products."""

    def __init__(self, axes: Iterable[Node]) -> None:
        self.shape = tuple(Product(node.size) if isinstance(node, Fix) else Product(1, (node,))
                           for node in map(normal, axes))

    def dim(self) -> int:
        """Number of axes."""
        return len(self.shape)


@dataclass(frozen=True)
class Term:
    """Something that costs the product of a number and widths.

    Args:
        child: of the model, that it belongs to.
        blocks: paths of the blocks that it is in, which can be left out.
        kind: 0 for MACs, 1 for operations, 2 for parameters.
        product: what it costs.
    """

    child: str
    blocks: tuple[str, ...]
    kind: int
    product: Product


class _Watcher(TorchFunctionMode):
    """Writes down the operations and what they cost, while it is active.

    Args:
        tracer: the tracer, which is active too.
        condition: from the path of a module to when it is computed.
    """

    def __init__(self, tracer: Tracer, condition: Callable[[str], Condition]) -> None:
        super().__init__()
        self._tracer, self._condition = tracer, condition
        self.operations = Operations()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in TRANSPARENT:
            return call_inside(self, func, args, kwargs)
        output = func(*args, **kwargs)
        path = self._tracer.path
        self.operations.called(func, args, kwargs, output, self._cost(func, args, kwargs, output),
                               self._condition(path))
        return output

    def called(self, function: Any, args: Any, kwargs: Any, output: Any) -> None:
        """Write down a call of a ``torch.autograd.Function``, which costs nothing by the analysis."""
        self.operations.called(function, args, kwargs, output, None, self._condition(self._tracer.path))

    def _cost(self, func: Any, args: Any, kwargs: Any, output: Any) -> tuple[str, tuple[int, ...], Product] | None:
        """Child of the model, kinds and amount."""
        count = MACS.get(func) or OTHERS.get(func)
        if count is None:
            return None

        def shaped(value: Any) -> Any:
            if isinstance(value, (list, tuple)):
                return [shaped(own) for own in value]
            return Shaped(self._tracer.axes(value)) if isinstance(value, Tensor) else value

        def operand(index: int, name: str) -> Any:
            return shaped(args[index] if index < len(args) else kwargs.get(name))

        amount: Any = count(operand, shaped(output))
        finish = amount.value if isinstance(amount, Rounded) else None
        amount = amount.size if isinstance(amount, Rounded) else amount
        product = amount if isinstance(amount, Product) else Product(amount)
        product.finish = finish
        return self._tracer.path.split('.')[0], (0, 1) if func in MACS else (1,), product


class CostFormula:
    """MACs, operations and parameters of any subnet of an elastic network on images of one size.

    Args:
        model: the network in full width, on the meta device.
        image: an image on the meta device.
        plan: what can be dropped in the network.
        widths: its genes of widths.
        depths: its genes of depths.

    Raises:
        ConfigError: for an operation that cannot be counted; whatever else the network raises goes through.
    """

    def __init__(self, model: nn.Module, image: Tensor, plan: Plan, widths: Sequence[WidthGene],
                 depths: Sequence[DepthGene]) -> None:
        self._plan = plan
        planned = {name: Atom(group.size, name) for name, group in plan.groups.items()}
        known = {name: [node_of(axis, planned) for axis in axes] for name, axes in plan.tensors.items()}
        self._run_of = {path: name for name, run in plan.runs.items() for path in run.blocks}
        self._skippable = {path: run for run in self._plan.runs.values() for path in run.blocks[run.least:]}
        terms = [*self._operations(model, image, known), *self._parameters(model, known)]
        # Operations may have bound a group to one of their own, but must not have tied or fixed any.
        found = {name: normal(atom) for name, atom in planned.items()}
        self._atoms = {name: atom for name, atom in found.items() if isinstance(atom, Atom)}
        assert len(set(self._atoms.values())) == len(plan.groups), 'the plan does not fit the forward pass'
        self._names = {atom: name for name, atom in self._atoms.items()}
        self._gene_of_group = {name: number for number, gene in enumerate(widths) for name in gene.groups}
        self._positions = [{channels: dict(zip(gene.groups, own))
                            for channels, own in zip(gene.channels, gene.positions)} for gene in widths]
        self._gene_of_run = {gene.name: number for number, gene in enumerate(depths, len(widths))}
        self._has = bool(widths), bool(depths)
        self._children = list(dict.fromkeys(term.child for term in terms))
        self._cells = self._divide(terms)

    def _operations(self, model: nn.Module, image: Tensor, known: Mapping[str, list[Node]]) -> list[Term]:
        tracer = Tracer(model, RULES, default_rule, known)
        watcher = _Watcher(tracer, self._condition_of)
        tracer.feed([image])
        with torch.no_grad(), forward_inputs(model, image) as inputs, traced_extensions(tracer), watching(
                model, tracer), self._passing(model, watcher.operations), custom_functions(
                    watcher.called), tracer, watcher:
            outputs = model(image, **inputs)
        terms = []
        for (child, kinds, product), condition in watcher.operations.needed(outputs):
            blocks = tuple(self._plan.runs[run].blocks[number] for run, number in condition.items())
            terms += [Term(child, blocks, kind, product) for kind in kinds]
        return terms

    @contextmanager
    def _passing(self, model: nn.Module, operations: Operations) -> Iterator[None]:
        """Within the context, it is written down what blocks hand on where they are left out."""
        changed = []

        def passing(path: str, forward: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                entered = args[0] if args else next(iter(kwargs.values()))
                output = forward(*args, **kwargs)
                operations.passed(entered, output, self._condition_of(path.rpartition('.')[0]))
                return output
            return call

        for path in self._skippable:
            module = model.get_submodule(path)
            changed.append((module, module.forward))
            module.forward = passing(path, module.forward)
        try:
            yield
        finally:
            for module, forward in changed:
                module.forward = forward

    def _condition_of(self, path: str) -> Condition:
        """When the module at a path is computed."""
        condition: dict[str, int] = {}
        for block in self._blocks_of(path):
            run = self._run_of[block]
            condition[run] = self._plan.runs[run].blocks.index(block)
        return condition

    def _parameters(self, model: nn.Module, known: Mapping[str, list[Node]]) -> list[Term]:
        terms = []
        for name, parameter in model.named_parameters():
            product = Product(1)
            for size in Shaped(known.get(name) or [Fix(size) for size in parameter.shape]).shape:
                product = product * size
            path = name.rpartition('.')[0]
            terms.append(Term(path.split('.')[0], self._blocks_of(path), 2, product))
        return terms

    def _blocks_of(self, path: str) -> tuple[str, ...]:
        names = path.split('.')
        above = ('.'.join(names[:count]) for count in range(1, len(names) + 1))
        return tuple(owner for owner in above if owner in self._skippable)

    def _divide(self, terms: Iterable[Term]) -> list[tuple[tuple[int, ...], list[Term], dict[Any, Any]]]:
        """The terms by the genes that they go by, with a table for what was computed before."""
        cells: dict[tuple[int, ...], list[Term]] = defaultdict(list)
        for term in terms:
            groups = {self._names[atom] for node in term.product.nodes for atom in atoms(node)}
            genes = {self._gene_of_group[name] for name in groups if name in self._gene_of_group}
            genes |= {self._gene_of_run[self._run_of[path]] for path in term.blocks
                      if self._run_of[path] in self._gene_of_run}
            cells[tuple(sorted(genes))].append(term)
        for few in sorted(cells, key=len):  # the fewer cells, the faster a look-up
            more = next((other for other in cells if other != few and set(few) <= set(other)), None)
            if more is not None:
                cells[more] += cells.pop(few)
        return [(genes, own, {}) for genes, own in cells.items()]

    def __call__(self, subnet: Mapping[str, Mapping[str, Any]]) -> dict[str, list[int]]:
        """MACs, operations and parameters of a subnet for each child of the model.

        Args:
            subnet: a canonical subnet.
        """
        values: tuple[Any, ...] = ()
        if self._has[0]:
            values += tuple(subnet['elastic.width']['out_channel'])
        if self._has[1]:
            values += tuple(subnet['elastic.depth']['depth'])
        amounts = []
        for genes, terms, table in self._cells:
            key = tuple([values[gene] for gene in genes])
            found = table.get(key)
            if found is None:
                found = table[key] = self._sums(dict(zip(genes, key)), terms)
            amounts.append(found)
        total = list(map(sum, zip(*amounts)))
        groups = {child: total[number:number + 3] for number, child in zip(range(0, len(total), 3), self._children)}
        return {child: own for child, own in groups.items() if any(own)}

    def _sums(self, values: Mapping[int, Any], terms: Iterable[Term]) -> list[int]:
        """MACs, operations and parameters of some terms for each child, one child after the other."""
        widths: dict[Atom, int] = {}
        for name, atom in self._atoms.items():
            gene = self._gene_of_group.get(name)
            if gene in values:
                widths[atom] = self._positions[gene][int(values[gene])][name]  # type: ignore[index]
        sums = [0] * (3 * len(self._children))
        names = self._run_of
        for term in terms:
            depths = ((self._gene_of_run.get(names[path]), path) for path in term.blocks)
            if any(gene is not None and self._plan.runs[names[path]].blocks.index(path) >= values[gene]
                   for gene, path in depths):
                continue
            sums[3 * self._children.index(term.child) + term.kind] += term.product.value(widths)
        return sums
