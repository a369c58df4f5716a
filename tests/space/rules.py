"""The eight sampling strategies written down as brute force: list everything, keep what the rule's text allows."""
from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

STAGE_NAMES = ('net_wise', 'net_wise_index', 'stage_wise', 'ordered_stage_wise', 'stage_wise_depth')
DEPTH_NAMES = (*STAGE_NAMES, 'ordered_stage_wise_depth')
BLOCK_NAMES = ('block_wise', 'ordered_block_wise')


def admissible(name: str, choices: Sequence[Sequence], depth: Sequence[int] | None = None,
               depth_choices: Sequence[Sequence[int]] | None = None, min_slope: float = 1, max_slope: float = 1000,
               start_stage: int = 0, end_stage: int | None = None) -> list[tuple]:
    """All values that a strategy may draw, in lexicographic order; ``depth`` is None for the depth itself."""
    columns = list(choices)
    if name in BLOCK_NAMES:
        assert depth is not None
        columns = [stage for stage, count in zip(choices, depth) for _ in range(count)]
    end = len(choices) - 1 if end_stage is None else end_stage

    def allowed(values: tuple) -> bool:
        if name == 'net_wise':
            return len(set(values)) == 1
        if name == 'net_wise_index':
            longest = max(len(stage) for stage in choices)
            return any(all(value == (stage[0] if len(stage) == 1 else stage[index])
                           for value, stage in zip(values, choices)) for index in range(longest))
        if name in ('ordered_stage_wise', 'ordered_stage_wise_depth'):
            return all(values[stage - 1] * min_slope <= values[stage] <= values[stage - 1] * max_slope
                       for stage in range(start_stage + 1, end + 1))
        if name == 'ordered_block_wise':
            return list(values) == sorted(values)
        if name == 'stage_wise_depth' and depth is not None:
            assert depth_choices is not None
            return all(len(stage) != len(depths) or list(stage).index(value) == list(depths).index(count)
                       for value, stage, count, depths in zip(values, choices, depth, depth_choices))
        return True

    return [values for values in itertools.product(*columns) if allowed(values)]


def stage_choices(stages: int, largest: int = 8, most: int = 3) -> st.SearchStrategy[list[tuple[int, ...]]]:
    """Ascending choices of each of ``stages`` stages."""
    stage = st.lists(st.integers(1, largest), min_size=1, max_size=most, unique=True).map(lambda x: tuple(sorted(x)))
    return st.lists(stage, min_size=stages, max_size=stages)


@st.composite
def choices_for(draw: st.DrawFn, name: str, stages: int, largest: int = 8) -> list[tuple[int, ...]]:
    """Choices that fit what the strategy demands of them."""
    choices = draw(stage_choices(stages, largest))
    if name == 'net_wise':
        return [choices[0]] * stages
    if name == 'net_wise_index':
        count = draw(st.integers(1, 3))
        return [(stage * 3)[:1] if draw(st.booleans()) else tuple(stage[0] + i for i in range(count))
                for stage in choices]
    return choices


@st.composite
def order_kwargs(draw: st.DrawFn, name: str, stages: int) -> dict[str, Any]:
    """Keywords of the strategies that have an order over stages; often the defaults."""
    if not name.startswith('ordered_stage') or draw(st.booleans()):
        return {}
    start = draw(st.integers(0, stages - 1))
    return dict(min_slope=draw(st.sampled_from([0, 0.5, 1, 1.5])), max_slope=draw(st.sampled_from([1, 2, 1000])),
                start_stage=start, end_stage=draw(st.sampled_from([None, start, stages - 1])))


@st.composite
def spaces(draw: st.DrawFn, names: Sequence[str] = (*STAGE_NAMES, *BLOCK_NAMES), most_stages: int = 3) -> tuple:
    """Stages, a depth element and two more elements (``x``, ``y``): ``(stages, {name: (strategy, kwargs, choices)})``.

    The smallest and the largest subnet obey the ordering rules, as a space must have it.
    """
    stages = draw(st.integers(1, most_stages))
    elements = {}
    for element, allowed in (('depth', DEPTH_NAMES), ('x', names), ('y', names)):
        name = draw(st.sampled_from(list(allowed)))
        kwargs = draw(order_kwargs(name, stages))
        choices = draw(choices_for(name, stages, 3 if element == 'depth' else 8).filter(
            lambda choices, name=name, kwargs=kwargs: extremes_allowed(name, choices, kwargs)))
        elements[element] = (name, kwargs, choices)
    return stages, elements


def extremes_allowed(name: str, choices: Sequence[Sequence], kwargs: dict[str, Any]) -> bool:
    """Whether the smallest and the largest value of every stage can be drawn together."""
    if not name.startswith('ordered'):
        return True
    members = admissible(name, choices, depth=[1] * len(choices), **kwargs)
    return all(tuple(stage[index] for stage in choices) in members for index in (0, -1))


def combinations(elements: dict[str, tuple]) -> int:
    """How many combinations of values :func:`all_settings` looks at, or more."""
    depth_choices = elements['depth'][2]
    columns = [stage for name, _, choices in elements.values() for stage, depths in zip(choices, depth_choices)
               for _ in range(depths[-1] if name in BLOCK_NAMES else 1)]
    return math.prod(len(column) for column in columns)


def config(elements: dict[str, tuple]) -> dict[str, Any]:
    """The elements of :func:`spaces` as they stand in a config."""
    return {element: dict(space=dict(dynamic_range=[list(stage) for stage in choices]),
                          sample_strategy=dict(name=name, kwargs=kwargs))
            for element, (name, kwargs, choices) in elements.items()}


def all_settings(elements: dict[str, tuple]) -> list[dict[str, tuple]]:
    """Every subnet of :func:`spaces`, in canonical form."""
    depth_name, depth_kwargs, depth_choices = elements['depth']
    result = []
    for depth in admissible(depth_name, depth_choices, **depth_kwargs):
        columns = [admissible(name, choices, depth, depth_choices, **kwargs)
                   for element, (name, kwargs, choices) in elements.items() if element != 'depth']
        names = [element for element in elements if element != 'depth']
        result += [dict(zip(['depth', *names], (depth, *values))) for values in itertools.product(*columns)]
    return result
