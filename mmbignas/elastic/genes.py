"""From the groups and runs of a plan to a search space that people can read.

A *gene* is one free decision: the width of one or several groups, or the depth of one run. With ``share='stage'`` all
groups inside the blocks of a stage have one gene, and so have all groups of one size between the blocks of a stage.
"""
from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from mmbignas.elastic.plan import Group, Plan
from mmbignas.elastic.tracing import common_path
from mmbignas.errors import ConfigError
from mmbignas.utils.rules import integer, list_of, must_be, number, one_of

SHARES = ('stage', 'group')
DIVISOR = 8
RULE_KEYS = ('ratios', 'divisor', 'match')
RATIOS = list_of(number(high=1, above=0), 'a list of numbers greater than 0 and up to 1', least=1)


@dataclass(frozen=True)
class WidthGene:
    """The width of some groups.

    Args:
        name: for people, e.g. ``backbone.layer1.inner``.
        groups: names of the groups.
        channels: ascending choices: channels of the widest of the groups.
        positions: per choice, per group: number of positions in use.
    """

    name: str
    groups: tuple[str, ...]
    channels: tuple[int, ...]
    positions: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class DepthGene:
    """The depth of a run.

    Args:
        name: of the run.
        choices: ascending numbers of blocks.
    """

    name: str
    choices: tuple[int, ...]


@dataclass(frozen=True)
class Rule:
    """One entry of ``width`` in a config.

    Args:
        ratios: ascending shares of the full width, up to 1.
        divisor: widths are multiples of it.
        match: pattern of names; '' for all.
        key: where the entry stands, for messages.
    """

    ratios: tuple[float, ...]
    divisor: int
    match: str
    key: str


def width_genes(model: nn.Module, plan: Plan, width: Any, share: str = 'stage') -> list[WidthGene]:
    """The genes of a model's widths.

    Args:
        model: the model.
        plan: its plan.
        width: ``dict(ratios=..., divisor=...)`` for all groups, or a list of ``dict(match=..., ratios=...)``, of which
            the first that matches a group counts; groups that none matches stay as they are. ``None`` for no genes.
        share: ``stage`` or ``group``.

    Returns:
        list: in the order of the network, of groups that have a choice.

    Raises:
        ConfigError: for anything that no width follows from.
    """
    one_of(SHARES).check(share, 'share')
    rules = _read_rules(width)
    chosen: dict[tuple[Any, ...], list[str]] = {}
    rule_of: dict[str, Rule] = {}
    for name, group in plan.groups.items():
        number = next((number for number, rule in enumerate(rules) if _matches(rule.match, name, group)), None)
        if number is not None:
            rule_of[name] = rules[number]
            key: tuple[Any, ...] = (number, *stage_key(model, group)) if share == 'stage' else (name,)
            chosen.setdefault(key, []).append(name)
    for rule in rules:
        if not any(_matches(rule.match, name, group) for name, group in plan.groups.items()):
            raise ConfigError(f'{rule.key}.match must match channels of the model, got {rule.match!r}; near it are '
                              f'{_near(rule.match, plan)}')
    genes: list[WidthGene] = []
    for key, names in chosen.items():
        title = names[0] if share == 'group' else f'{key[1]}.{key[2]}'
        gene = _gene(title, names, plan, rule_of[names[0]])
        if len(gene.channels) > 1:
            genes.append(gene)
    return _named_apart(genes)


def depth_genes(plan: Plan, depth: Any) -> list[DepthGene]:
    """The genes of a model's depths.

    Args:
        plan: the model's plan.
        depth: ``'residual'`` for all runs, each with all depths from 1; or run -> choices, among which 0 may be, where
            the blocks before and after fit together; ``None`` for no genes.

    Returns:
        list: in the order of the network.

    Raises:
        ConfigError: for runs that there are none of, or depths that these cannot have.
    """
    if depth is None:
        return []
    if depth == 'residual':
        return [DepthGene(name, tuple(range(max(run.least, 1), len(run.blocks) + 1)))
                for name, run in plan.runs.items()]
    if not isinstance(depth, Mapping):
        raise must_be('depth', "'residual' or a dict from runs to their choices", depth)
    genes = {}
    for pattern, choices in depth.items():
        names = [name for name in plan.runs if name == pattern or fnmatchcase(name, str(pattern))]
        if not names:
            raise ConfigError(f'depth must name runs of blocks that can be left out, got {pattern!r}; the model has '
                              f'{", ".join(plan.runs) or "none"}')
        for name in names:
            run = plan.runs[name]
            allowed = range(run.least, len(run.blocks) + 1)
            if not isinstance(choices, Sequence) or not choices or any(choice not in allowed for choice in choices) or (
                    max(choices) != len(run.blocks)):
                raise ConfigError(f'depth[{pattern!r}] must be a list of numbers of blocks from {allowed[0]} to '
                                  f'{allowed[-1]}, the last of them among these, got {choices!r}')
            genes[name] = DepthGene(name, tuple(sorted(set(choices))))
    return [gene for name in plan.runs if (gene := genes.get(name)) is not None and len(gene.choices) > 1]


def _read_rules(width: Any) -> list[Rule]:
    if width is None:
        return []
    entries = [(f'width[{number}]', entry) for number, entry in enumerate(width)] if isinstance(
        width, Sequence) and not isinstance(width, str) else [('width', width)]
    rules = []
    for key, entry in entries:
        if not isinstance(entry, Mapping) or 'ratios' not in entry or set(entry) - set(RULE_KEYS):
            raise must_be(key, 'dict(ratios=..., divisor=..., match=...)', entry)
        ratios, divisor = entry['ratios'], entry.get('divisor', DIVISOR)
        RATIOS.check(ratios, f'{key}.ratios')
        if max(ratios) != 1:
            raise ConfigError(f'{key}.ratios must have 1.0 among them, since the largest subnet is the stock network, '
                              f'got {list(ratios)}')
        integer(1).check(divisor, f'{key}.divisor')
        match = entry.get('match', '')
        if not isinstance(match, str):
            raise must_be(f'{key}.match', 'a pattern of module paths', match)
        rules.append(Rule(tuple(sorted(set(map(float, ratios)))), int(divisor), match, key))
    return rules


def _matches(pattern: str, name: str, group: Group) -> bool:
    """Whether a pattern is that of a group: of its name, or of a layer that makes it or of what that is in."""
    return not pattern or any(fnmatchcase(path, pattern) or fnmatchcase(path, f'{pattern}.*')
                              for path in (name, *group.producers))


def _near(pattern: str, plan: Plan) -> str:
    names = list(dict.fromkeys(path for name, group in plan.groups.items() for path in (name, *group.producers)))
    near = difflib.get_close_matches(pattern, names, 5, 0.3) or names[:5]
    return ', '.join(near) or 'none'


def stage_key(model: nn.Module, group: Group) -> tuple[str, str]:
    """The stage that a group belongs to, and what it is there.

    Args:
        model: the model.
        group: the group.

    Returns:
        tuple: path of the stage; ``inner`` for a group inside one block, ``out`` and its size for one between blocks.
    """
    places = [_place(model, path) for path in group.users]
    if len(set(places)) == 1:
        return places[0][0], 'inner'
    return common_path([_place(model, path)[0] for path in group.producers]) or 'model', f'out{group.size * group.unit}'


def _place(model: nn.Module, path: str) -> tuple[str, str]:
    """The stage that a module is in, and the block in it: the first member of a list that is no list itself."""
    names, module, inside = path.split('.'), model, False
    for place, name in enumerate(names):
        module = module._modules[name]  # type: ignore[assignment]
        is_list = isinstance(module, (nn.Sequential, nn.ModuleList))
        if inside and not is_list:
            return '.'.join(names[:place]), '.'.join(names[:place + 1])
        inside = is_list
    stage = '.'.join(names[:2])
    return stage, stage


def _gene(title: str, names: Sequence[str], plan: Plan, rule: Rule) -> WidthGene:
    widest = max(names, key=lambda name: plan.groups[name].size * plan.groups[name].unit)
    by_channels: dict[int, tuple[int, ...]] = {}
    for ratio in rule.ratios:
        positions = {name: _positions(name, plan.groups[name], ratio, rule) for name in names}
        by_channels[positions[widest] * plan.groups[widest].unit] = tuple(positions.values())
    channels = tuple(sorted(by_channels))
    return WidthGene(title, tuple(names), channels, tuple(by_channels[count] for count in channels))


def _positions(name: str, group: Group, ratio: float, rule: Rule) -> int:
    """How many positions of a group are in use at a ratio: a multiple of the divisor in channels, where it has one."""
    if ratio == 1:
        return group.size
    step = math.lcm(rule.divisor, group.unit) // group.unit
    if step >= group.size:
        if rule.match and step > group.size and group.unit * group.size < rule.divisor:
            raise ConfigError(f'{rule.key}.divisor must not be greater than the width of what it matches, got '
                              f'{rule.divisor}; {name} has {group.size * group.unit} channels')
        return group.size
    count = round(group.size * ratio / step) * step
    if count == 0 and rule.divisor == 1:
        raise ConfigError(f'{rule.key}.ratios must leave a channel, got {ratio}, which leaves 0 of '
                          f'{group.size * group.unit} in {name}')
    return min(max(count, step), group.size)


def _named_apart(genes: Sequence[WidthGene]) -> list[WidthGene]:
    """The genes, with names that differ."""
    seen: dict[str, int] = {}
    result = []
    for gene in genes:
        seen[gene.name] = seen.get(gene.name, 0) + 1
        name = gene.name if seen[gene.name] == 1 else f'{gene.name}:{seen[gene.name]}'
        result.append(WidthGene(name, gene.groups, gene.channels, gene.positions))
    return result
