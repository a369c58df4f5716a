"""The search space of one module: its elements, what can be drawn from them, and the form its settings are kept in."""
from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from mmbignas.errors import ConfigError
from mmbignas.space.depth_numbers import DepthNumbers, count_depths
from mmbignas.space.element import Element, parse_element, read_values
from mmbignas.space.strategies import Value, Values, Variants
from mmbignas.utils.rules import check_keys, must_be, shown

ModuleSettings = Mapping[str, Values]

MAX_CACHED = 1024  # sets of values that follow the depth; a space has any number of depths


class MissingElement(ConfigError):
    """Settings without an element that is searched, and otherwise right."""


class ModuleSpace:
    """The elements of one searchable module.

    A module has stages, a stage has ``depth`` blocks. Every other element has one value per stage, or, under a
    block-wise strategy, one per block. Settings are accepted in both forms; one canonical form is kept: a tuple per
    element, one value per block for block-wise elements and one per stage for all others. Values for blocks that the
    depth leaves out do not exist in it, so equal subnets have equal settings.

    Args:
        elements: element name -> list or ``dict(space=..., sample_strategy=...)``, as in a config. Must have ``depth``.
        num_stages: how many stages the module has.
        block_elements: the elements that may differ between the blocks of a stage.
        key: how messages name the module, e.g. its class.
        least_depth: 0 where a stage may have no block.

    Raises:
        ConfigError: for anything that no subnet could be drawn from, naming key, value and what is allowed.
    """

    def __init__(self, elements: Mapping[str, Any], num_stages: int,
                 block_elements: Sequence[str] = ('kernel_size', 'expand_ratio'), key: str = 'space',
                 least_depth: int = 1) -> None:
        self.key = key
        self.num_stages = num_stages
        self.block_elements = tuple(block_elements)
        self._least_depth = least_depth
        if 'depth' not in elements:
            raise ConfigError(f'{key}.depth is missing; give the number of blocks per stage')
        names = ['depth', *(name for name in elements if name != 'depth')]
        parsed = {name: parse_element(name, elements[name], num_stages, f'{key}.{name}', least_depth) for name in names}
        self.elements: dict[str, Element] = {
            name: self._resolve(element, parsed['depth']) for name, element in parsed.items()}
        self._others = names[1:]
        self._variants = {name: element.variants() for name, element in self.elements.items()
                          if not element.follows_depth}
        self._variants_of_depth: dict[tuple[str, Values], Variants] = {}

    def _resolve(self, element: Element, depth: Element) -> Element:
        """Check the element against the module, and give a fixed per-block list its stages."""
        if element.strategy is not None:
            if element.per_block and element.name not in self.block_elements:
                raise must_be(f'{element.key}.sample_strategy', 'net-wise or stage-wise (only '
                              f'{", ".join(self.block_elements) or "nothing"} may differ between blocks of a stage)',
                              element.strategy.name)
            element.strategy.check(element.name, element.choices, element.key)
            return element
        if element.blocks is None:
            return element
        counts = [stage[0] for stage in depth.choices]
        total = sum(counts)
        if depth.searched or len(element.blocks) != total:
            raise must_be(element.key, self._lengths(None if depth.searched else int(total)), element.blocks)
        stages = split_blocks(element.blocks, counts)
        choices = tuple(tuple(sorted(set(stage))) for stage in stages)
        if all(len(stage) == 1 for stage in choices):
            return Element(element.name, choices, None, element.key)
        if element.name not in self.block_elements:
            raise must_be(element.key, 'the same for all blocks of a stage', element.blocks)
        return dataclasses.replace(element, choices=choices)

    @property
    def searched(self) -> bool:
        """Whether there is more than one subnet."""
        return any(element.searched for element in self.elements.values())

    @property
    def is_supernet(self) -> bool:
        """Whether some element is given as a space, even one with a single choice.

        A module that receives tensors of changing width has to be a supernet even if it has nothing to choose.
        """
        return any(element.strategy is not None for element in self.elements.values())

    def variants(self, name: str, depth: Values | None = None) -> Variants:
        """The admissible values of element ``name``, given the depth if the element is another one.

        Args:
            name: an element.
            depth: blocks per stage; needed for an element that follows the depth.
        """
        if name in self._variants:
            return self._variants[name]
        assert depth is not None
        variants = self._variants_of_depth.get((name, depth))
        if variants is None:
            if len(self._variants_of_depth) >= MAX_CACHED:
                self._variants_of_depth.clear()
            variants = self.elements[name].variants(depth, self.elements['depth'].choices)
            self._variants_of_depth[name, depth] = variants
        return variants

    @cached_property
    def _depths(self) -> DepthNumbers:
        return count_depths(self.variants('depth'), [element for element in self.elements.values()
                                                     if element.searched and element.per_block])

    @cached_property
    def _stage_ways(self) -> int:
        """The number of ways to draw the elements that are not block-wise; it is the same for every depth."""
        depth = self.variants('depth')[0]
        return math.prod(self.variants(name, depth).size for name, element in self.elements.items()
                         if name != 'depth' and not element.per_block)

    @cached_property
    def size(self) -> int:
        """How many subnets there are."""
        return self._depths.size * self._stage_ways

    def __getitem__(self, number: int) -> dict[str, Values]:
        """The settings with this number, ``0 <= number < size``.

        They are in lexicographic order: by depth, then by the other elements, the last of which varies fastest. The
        first are the smallest subnet's, the last the largest's.
        """
        number, rest = divmod(number, self._stage_ways)
        depth, number = self._depths.locate(number)
        number = number * self._stage_ways + rest
        values = []
        for name in reversed(self._others):
            variants = self.variants(name, depth)
            number, own = divmod(number, variants.size)
            values.append(variants[own])
        return dict(zip(self.elements, (depth, *reversed(values))))

    def index(self, settings: ModuleSettings) -> int:
        """The number of canonical settings."""
        depth, number = settings['depth'], 0
        for name in self._others:
            variants = self.variants(name, depth)
            number = number * variants.size + variants.index(settings[name])
        return self._depths.start(depth) * self._stage_ways + number

    def _assemble(self, pick: Callable[[Variants], Values]) -> dict[str, Values]:
        depth = pick(self._variants['depth'])
        settings = {'depth': depth}
        for name in self._others:
            settings[name] = pick(self.variants(name, depth))
        return settings

    def sample(self, rng: random.Random) -> dict[str, Values]:
        """Draw settings, each element by its strategy, from an explicit generator."""
        return self._assemble(lambda variants: variants.sample(rng))

    def max(self) -> dict[str, Values]:
        """The largest subnet."""
        return self._assemble(lambda variants: variants[variants.size - 1])

    def min(self) -> dict[str, Values]:
        """The smallest subnet."""
        return self._assemble(lambda variants: variants[0])

    def middle(self) -> dict[str, Values]:
        """The subnet in the middle of all choices."""
        return self._assemble(lambda variants: variants.middle())

    def canonical(self, settings: Mapping[str, Sequence[Value]], key: str | None = None) -> dict[str, Values]:
        """Check settings and bring them into canonical form.

        Args:
            settings: element -> values, one per stage or one per block. Fixed elements may be left out.
            key: how messages name the module, e.g. its path in the model.

        Raises:
            ConfigError: for an unknown or missing element, a wrong length, or a value outside the space, naming
                module, element, stage or block, the value and the allowed ones.
        """
        key = key or self.key
        check_keys(settings, key, self.elements)
        result: dict[str, Values] = {}
        missing: list[str] = []
        for name, element in self.elements.items():
            where = f'{key}.{name}'
            if name in settings and 'depth' in missing and (
                    len(read_values(name, settings[name], where, self._least_depth)) != self.num_stages):
                continue  # how many values there have to be depends on the depth
            if name in settings:
                values = self._align(settings[name], element, result.get('depth'), where)
            elif element.searched:
                missing.append(name)
                values = self.variants(name, result.get('depth'))[-1]
            else:
                values = self.variants(name, result.get('depth'))[0]
            problem = self.variants(name, result.get('depth')).explain(values, 'block' if element.per_block else
                                                                       'stage')
            if problem:
                raise ConfigError(f'{where} {problem}')
            result[name] = values
        if missing:  # said last, so that it hides no wrong value
            choices = [list(stage) for stage in self.elements[missing[0]].choices]
            raise MissingElement(f'{key}.{missing[0]} is missing; give one of {shown(choices)}, stage by stage')
        return result

    def _align(self, values: Sequence[Value], element: Element, depth: Values | None, key: str) -> Values:
        """From one value per stage or one per block to the form that this element is kept in."""
        values = read_values(element.name, values, key, self._least_depth)
        counts = [int(count) for count in depth] if depth is not None else [1] * self.num_stages
        if len(values) == self.num_stages:
            if not element.per_block:
                return values
            return tuple(value for value, count in zip(values, counts) for _ in range(count))
        if depth is None or len(values) != sum(counts):
            raise must_be(key, self._lengths(None if depth is None else sum(counts)), values)
        if element.per_block:
            return values
        stages = split_blocks(values, counts)
        if any(len(set(stage)) > 1 for stage in stages):
            raise must_be(key, 'the same for all blocks of a stage', values)
        return tuple(stage[0] for stage in stages)

    def _lengths(self, blocks: int | None) -> str:
        """How many values an element may have, for messages."""
        return f'a list of one value per stage ({self.num_stages})' + f' or one per block ({blocks})' * bool(blocks)

    def blocks(self, settings: ModuleSettings) -> list[list[dict[str, Any]]]:
        """Canonical settings block by block: per stage, per active block, element -> value (without depth)."""
        counts = [int(count) for count in settings['depth']]
        columns = {}
        for name, element in self.elements.items():
            if name != 'depth':
                columns[name] = (split_blocks(settings[name], counts) if element.per_block else
                                 [[value] * count for value, count in zip(settings[name], counts)])
        return [[{name: column[stage][block] for name, column in columns.items()} for block in range(count)]
                for stage, count in enumerate(counts)]

    def choices(self, name: str, stage: int, block: int = 0) -> tuple[Value, ...]:
        """The ascending choices of an element in one block; the last is what a supernet's layers are built with.

        Args:
            name: an element.
            stage: where.
            block: where in the stage; it matters for a fixed element that was given per block.
        """
        element = self.elements[name]
        if element.blocks is None:
            return element.choices[stage]
        start = sum(int(depth[0]) for depth in self.elements['depth'].choices[:stage])
        return (element.blocks[start + block],)


def split_blocks(values: Sequence[Value], depth: Sequence[Value]) -> list[Values]:
    """Cut one value per block into stages of ``depth`` blocks."""
    stages, start = [], 0
    for count in depth:
        stages.append(tuple(values[start:start + int(count)]))
        start += int(count)
    return stages
