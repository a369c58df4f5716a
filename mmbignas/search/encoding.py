"""Subnets as parameters of Optuna's trials, and back."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from mmbignas.space import Genome, ModuleSpace, SearchSpace, Subnet
from mmbignas.space.strategies import Chain, Value, Values


class Encoding:
    """The genes of a space as Optuna's parameters, one per gene, by the gene's name.

    Numbers that are evenly spaced are parameters on the real values, so that Optuna's dashboard shows widths and
    depths. Other genes (rows of a net-wise index, image sizes, unevenly spaced numbers) are indices into their choices.
    These are ascending, and an index keeps the order, which a categorical parameter would lose.

    The parameters of a trial are those of the blocks that its subnet has. Samplers, however, need all parameters of all
    trials; :meth:`filled` adds the others.

    Args:
        space: the search space.

    Attributes:
        genome: the space's genome.
        distributions: of each gene, by name.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.genome = Genome(space)
        self._names = [str(gene) for gene in self.genome.genes]
        parameters = [_parameter(gene.choices) for gene in self.genome.genes]
        self._values = [values for values, _ in parameters]
        self.distributions = {name: distribution for name, (_, distribution) in zip(self._names, parameters)}

    def params(self, subnet: Subnet) -> dict[str, Value]:
        """The parameters of a subnet, without those of blocks that its depth leaves out."""
        return {name: values[index] for name, values, index in
                zip(self._names, self._values, self.genome.encode(subnet)) if index >= 0}

    def filled(self, params: Mapping[str, Value]) -> dict[str, Value]:
        """All parameters: absent blocks get the values of the last present block of their stage.

        A block gets the same when it is added; see :meth:`~mmbignas.space.Genome.neighbours`.
        """
        result: dict[str, Value] = {}
        last: dict[Any, Value] = {}
        for gene, name in zip(self.genome.genes, self._names):  # the blocks of a stage follow each other
            stage = gene.module, gene.element, gene.stage
            result[name] = last[stage] = params[name] if name in params else last[stage]
        return result

    def subnet(self, params: Mapping[str, Value]) -> Subnet:
        """The subnet of drawn parameters.

        Values that break an ordering rule are moved to the nearest allowed ones, block by block; where values must
        ascend, they are sorted first. (With a dozen blocks, drawing again until the rule holds would hardly ever end.)

        Args:
            params: a value for each gene; those of blocks that the depth leaves out do not matter.
        """
        vector = [_nearest_index(values, params[name]) for name, values in zip(self._names, self._values)]
        for path, space in self.space.modules.items():
            self._repair(vector, path, space)
        return self.genome.decode(vector)

    def _repair(self, vector: list[int], path: str, space: ModuleSpace) -> None:
        """Make the genes of a module obey its ordering rules."""
        depth: Values | None = None
        for name, element in space.elements.items():
            variants, places = space.variants(name, depth), self.genome.places(path, name, depth)
            values = tuple(choices[vector[number] if number is not None else 0] for number, choices in places)
            if isinstance(variants, Chain) and variants.explain(values) is not None:
                ascending = element.strategy is not None and element.strategy.name == 'ordered_block_wise'
                values = nearest(variants, sorted(values) if ascending else values)
                for (number, choices), value in zip(places, values):
                    if number is not None:
                        vector[number] = choices.index(value)
            if name == 'depth':
                depth = values if isinstance(variants, Chain) else values[0]


def element_of(name: str) -> str:
    """The element that a parameter is about, e.g. ``out_channel`` of ``backbone.out_channel (stage 1)``."""
    return name.partition(' (')[0].rpartition('.')[2]


def nearest(chain: Chain, targets: Sequence[Value]) -> Values:
    """Admissible values of a chain near others, one per position, chosen from the first position to the last."""
    allowed = [set(chain.choices[-1])]  # per position: the values from which the end can be reached
    for position in reversed(range(1, len(chain.choices))):
        allowed.append({value for value in chain.choices[position - 1]
                        if not allowed[-1].isdisjoint(chain.options(position, value))})
    values: list[Value] = []
    for position, (target, own) in enumerate(zip(targets, reversed(allowed))):
        options = chain.options(position, values[-1] if values else None)
        values.append(min((value for value in options if value in own), key=lambda value: abs(value - target)))
    return tuple(values)


def _parameter(choices: Sequence[Any]) -> tuple[tuple[Value, ...], BaseDistribution]:
    """The parameter for each choice of a gene, the number itself or its index, and the distribution over them."""
    numbers = [number for number in map(_number, choices) if number is not None]
    values: tuple[Value, ...] = tuple(numbers) if len(numbers) == len(choices) else tuple(range(len(choices)))
    steps = [high - low for low, high in zip(values, values[1:])]
    if min(steps) <= 0 or max(steps) - min(steps) > 1e-9 * max(steps):
        values, steps = tuple(range(len(choices))), [1]
    if all(isinstance(value, int) for value in values):
        return values, IntDistribution(int(values[0]), int(values[-1]), step=int(steps[0]))
    return values, FloatDistribution(values[0], values[-1], step=round(steps[0], 10))


def _number(choice: Any) -> Value | None:
    """A choice as a number, also if it is the same number for all stages, or for height and width."""
    if isinstance(choice, tuple):
        return choice[0] if len(set(choice)) == 1 else None
    return choice


def _nearest_index(values: Sequence[Value], value: Value) -> int:
    return min(range(len(values)), key=lambda index: abs(values[index] - value))
