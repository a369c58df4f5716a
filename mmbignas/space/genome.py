"""Subnets as vectors of genes: the form that evolutionary search, surrogate models and sensitivity studies work on."""
from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mmbignas.errors import ConfigError
from mmbignas.space.module_space import ModuleSettings, ModuleSpace, split_blocks
from mmbignas.space.search_space import SearchSpace
from mmbignas.space.strategies import Chain, OneIndex, Values
from mmbignas.space.subnet import IMAGE_SIZE, Subnet
from mmbignas.utils.rules import integer, must_be

INACTIVE = -1


@dataclass(frozen=True)
class Gene:
    """One free decision in a search space.

    Args:
        module: path of the module; ``''`` also for the image size, which belongs to the model.
        element: the element, or ``image_size``.
        stage: the stage; ``None`` where the gene holds for all stages.
        block: the block in the stage; ``None`` where the gene holds for all blocks.
        choices: ascending choices. Those of a gene for all stages are tuples of one value per stage, those of the image
            size ``(height, width)``.
    """

    module: str
    element: str
    stage: int | None
    block: int | None
    choices: tuple[Any, ...]

    def __str__(self) -> str:
        name = f'{self.module}.{self.element}' if self.module else self.element
        places = [f'{unit} {number}' for unit, number in (('stage', self.stage), ('block', self.block))
                  if number is not None]
        return f'{name} ({", ".join(places)})' if places else name


class Genome:
    """Subnets of a space as vectors with one entry per free decision.

    An element that is drawn by one index has one gene, a stage-wise one has one per stage, and a block-wise one has one
    per block of the greatest depth; the image size has one as well. What is fixed, or follows the depth, has none. Two
    subnets are equal if and only if their vectors are.

    Args:
        space: the search space.

    Attributes:
        genes: a :class:`Gene` for each entry of a vector.

    Example:
        >>> genome = Genome(space)
        >>> vector = genome.encode(space.min())  # an index into the choices of each gene
        >>> genome.decode(vector) == space.min()
        True
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.genes = tuple(_genes(space))
        self._rules = [integer(0, len(gene.choices) - 1) for gene in self.genes]
        self._numbers = {(gene.module, gene.element, gene.stage, gene.block): number
                         for number, gene in enumerate(self.genes)}

    def places(self, module: str, element: str, depth: Values | None) -> list[tuple[int | None, tuple[Any, ...]]]:
        """What has to be decided about an element, in the order of its values.

        Args:
            module: path of the module.
            element: the element.
            depth: blocks per stage; ``None`` for the depth itself.

        Returns:
            list: number of the gene, ``None`` where there is a single choice, and the choices; one entry alone for an
            element that is drawn by one index.
        """
        return [(self._numbers[module, element, stage, block] if len(choices) > 1 else None, choices)
                for stage, block, choices in _decisions(self.space.modules[module], element, depth)]

    def encode(self, subnet: Subnet) -> tuple[int, ...]:
        """The vector of a subnet.

        Returns:
            tuple: an index into the choices of each gene; -1 for a gene of a block that the subnet's depth leaves out.

        Raises:
            ConfigError: for a subnet of another space.
        """
        subnet = self.space.canonical(subnet)
        vector = [INACTIVE] * len(self.genes)
        for path, space in self.space.modules.items():
            settings = subnet[path]
            for name, values in settings.items():
                decided = [values] if isinstance(space.variants(name, settings['depth']), OneIndex) else values
                for (number, choices), value in zip(self.places(path, name, settings['depth']), decided):
                    if number is not None:
                        vector[number] = choices.index(value)
        if subnet.image_size is not None:
            vector[-1] = self.space.image_sizes.index(subnet.image_size)
        return tuple(vector)

    def decode(self, vector: Sequence[int]) -> Subnet:
        """The subnet of a vector.

        Args:
            vector: an index into the choices of each gene. Entries for blocks that the depth leaves out do not matter.

        Raises:
            ConfigError: for a vector of another length, an index out of range, or values that break an ordering rule.
        """
        if len(vector) != len(self.genes):
            raise must_be('vector', f'{len(self.genes)} indices, one per gene', vector)
        result = {}
        for path, space in self.space.modules.items():
            settings: dict[str, Values] = {}
            for name in space.elements:
                settings[name] = self._decode_element(vector, path, name, settings.get('depth'))
            result[path] = settings
        several = len(self.space.image_sizes) > 1
        return Subnet(result, self._chosen(vector, len(vector) - 1) if several else None)

    def _decode_element(self, vector: Sequence[int], path: str, name: str, depth: Values | None) -> Values:
        space = self.space.modules[path]
        decided = tuple(choices[0] if number is None else self._chosen(vector, number)
                        for number, choices in self.places(path, name, depth))
        variants = space.variants(name, depth)
        if isinstance(variants, OneIndex):
            return decided[0]
        problem = variants.explain(decided, 'block' if space.elements[name].per_block else 'stage')
        if problem:
            raise ConfigError(f'{path or space.key}.{name} {problem}')
        return decided

    def _chosen(self, vector: Sequence[int], number: int) -> Any:
        """What the vector chooses for a gene."""
        gene = self.genes[number]
        return gene.choices[self._rules[number].check(vector[number], f'vector[{number}] for {gene}')]

    def neighbours(self, subnet: Subnet) -> Iterator[Subnet]:
        """Every subnet of the space that differs in exactly one gene, each once.

        Where the depth differs, added blocks take the values of the stage's last block, and removed blocks vanish.

        Raises:
            ConfigError: for a subnet of another space.
        """
        subnet = self.space.canonical(subnet)
        for gene, index in zip(self.genes, self.encode(subnet)):
            if index == INACTIVE:
                continue
            for choice in gene.choices[:index] + gene.choices[index + 1:]:
                if gene.element == IMAGE_SIZE:
                    yield Subnet(subnet, choice)
                    continue
                space = self.space.modules[gene.module]
                settings = _changed(space, subnet[gene.module], gene, choice)
                if all(space.variants(name, settings['depth']).explain(settings[name]) is None for name in settings):
                    yield Subnet({**subnet, gene.module: settings}, subnet.image_size)

    def crossover(self, first: Subnet, second: Subnet, rng: random.Random) -> Subnet:
        """A subnet of the space that has each gene from one of two others.

        Each element is drawn uniformly from what the space allows of the parents' values, given the depth that was
        drawn before. If blocks that only one parent has cannot be fitted between those that both have without
        breaking an ordering rule, all choices of their stages are open for such blocks.

        Raises:
            ConfigError: for a subnet of another space.
        """
        parents = self.space.canonical(first), self.space.canonical(second)
        result = {}
        for path, space in self.space.modules.items():
            child: dict[str, Values] = {}
            for name in space.elements:
                child[name] = _cross(space, name, child.get('depth'), [parent[path] for parent in parents], rng)
            result[path] = child
        return Subnet(result, rng.choice(parents).image_size)


def _genes(space: SearchSpace) -> Iterator[Gene]:
    for path, module in space.modules.items():
        greatest = module.max()['depth']
        for name in module.elements:
            for stage, block, choices in _decisions(module, name, greatest):
                if len(choices) > 1:
                    yield Gene(path, name, stage, block, choices)
    if len(space.image_sizes) > 1:
        yield Gene('', IMAGE_SIZE, None, None, space.image_sizes)


def _decisions(space: ModuleSpace, name: str, depth: Values | None) -> list[tuple[int | None, int | None, tuple]]:
    """The decisions about an element, given the depth: stage, block, and the choices."""
    variants = space.variants(name, depth)
    if isinstance(variants, OneIndex):
        return [(None, None, tuple(variants.rows))]
    assert isinstance(variants, Chain)
    if space.elements[name].per_block and depth is not None:
        places = [(stage, block) for stage, count in enumerate(depth) for block in range(int(count))]
        return [(stage, block, choices) for (stage, block), choices in zip(places, variants.choices)]
    return [(stage, None, choices) for stage, choices in enumerate(variants.choices)]


def _changed(space: ModuleSpace, settings: ModuleSettings, gene: Gene, choice: Any) -> dict[str, Values]:
    """Settings with another choice for one gene; they may break an ordering rule."""
    values = list(settings[gene.element])
    if gene.stage is None:
        values = choice
    elif gene.block is None:
        values[gene.stage] = choice
    else:
        values[int(sum(settings['depth'][:gene.stage])) + gene.block] = choice
    changed = {**settings, gene.element: tuple(values)}
    if gene.element != 'depth':
        return changed
    for name, element in space.elements.items():
        if element.per_block:
            stages = split_blocks(settings[name], settings['depth'])
            changed[name] = tuple(value for stage, count in zip(stages, changed['depth'])
                                  for value in (stage + stage[-1:] * int(count))[:int(count)])
        elif element.follows_depth:
            decisions = _decisions(space, name, changed['depth'])
            changed[name] = tuple(choices[0] if len(choices) == 1 else value
                                  for (_, _, choices), value in zip(decisions, settings[name]))
    return changed


def _cross(space: ModuleSpace, name: str, depth: Values | None, parents: Sequence[ModuleSettings],
           rng: random.Random) -> Values:
    """Draw one element of a child of two parents, given the child's depth."""
    variants = space.variants(name, depth)
    if isinstance(variants, OneIndex):
        return rng.choice(parents)[name]
    assert isinstance(variants, Chain)
    values = [{(stage, block): value for (stage, block, _), value in
               zip(_decisions(space, name, parent['depth']), parent[name])} for parent in parents]
    inherited, opened = [], []
    for stage, block, choices in _decisions(space, name, depth):
        own = {parent[stage, block] for parent in values if (stage, block) in parent}
        shared = all((stage, block) in parent for parent in values)
        inherited.append(tuple(sorted(own)) if len(choices) > 1 else choices)
        opened.append(inherited[-1] if shared else choices)
    chain = Chain(inherited, variants.slopes)
    return (chain if chain.size else Chain(opened, variants.slopes)).sample(rng)
