"""What is elastic in a network, as a table for people."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from terminaltables import AsciiTable

from mmbignas.elastic.family import Family
from mmbignas.elastic.network_profile import elastic_share
from mmbignas.utils.units import format_macs, format_params

REASON_LENGTH, NAMED = 90, 3


def summary(family: Family, image_size: Sequence[int]) -> str:
    """The widths and depths of a family, what they amount to, and what is frozen and why.

    Args:
        family: the family.
        image_size: height and width in pixels that its costs were counted for.
    """
    rows = [['widths', 'layers', 'channels'], *_widths(family), *_depths(family)]
    lines = [AsciiTable(rows).table, f'{len(family.plan.groups)} groups of channels, {len(family.plan.runs)} runs of '
             f'blocks with a shortcut, {family.space.size:,} subnets', f'{elastic_share(family.layers):.1%} of the '
             'MACs are in layers that can get narrower or be left out']
    height, width = image_size
    for name, cost in (('largest', family.largest), ('smallest', family.smallest)):
        if cost is not None:
            lines.append(f'{name} subnet: {format_macs(cost.macs)} at {height}x{width}, {format_params(cost.params)} '
                         'parameters')
    if family.no_costs:
        lines.append(f'costs cannot be counted: {family.no_costs}')
    return '\n'.join([*lines, *_frozen(family)])


def _widths(family: Family) -> Iterator[list[Any]]:
    width: Any = getattr(family.model.elastic, 'width', None)
    for gene in width.genes if width is not None else ():
        layers = dict.fromkeys(path for name in gene.groups for path in family.plan.groups[name].producers)
        yield [gene.name, len(layers), ' '.join(map(str, gene.channels))]


def _depths(family: Family) -> Iterator[list[Any]]:
    depth: Any = getattr(family.model.elastic, 'depth', None)
    if depth is not None:
        yield ['depths', 'blocks', 'in use']
        for gene in depth.genes:
            yield [gene.name, len(family.plan.runs[gene.name].blocks), ' '.join(map(str, gene.choices))]


def _frozen(family: Family) -> Iterator[str]:
    """A line per reason for which channels stay, and one for groups that the divisor leaves no choice."""
    width: Any = getattr(family.model.elastic, 'width', None)
    chosen = {name for gene in (width.genes if width is not None else ()) for name in gene.groups}
    narrow = [name for name in family.plan.groups if name not in chosen]
    if narrow:
        yield f'without a choice, as they have too few channels for the divisor: {_named(narrow)}'
    if family.plan.frozen:
        yield 'what stays as it is:'
    for reason, axes in family.plan.frozen.items():
        layers = list(dict.fromkeys(axis.rpartition('[')[0].rpartition('.')[0] for axis in axes))
        text = reason if len(reason) <= REASON_LENGTH else f'{reason[:REASON_LENGTH]}...'
        yield f'  {text}: {_named(layers)}'


def _named(names: Sequence[str]) -> str:
    rest = len(names) - NAMED
    return ', '.join(names[:NAMED]) + (f' and {rest} more' if rest > 0 else '')
