"""Genes, neighbours and crossover, against a plain reading of the rules over the list of all subnets."""
from __future__ import annotations

import itertools
import random
from collections import Counter
from typing import Any

import hypothesis
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import chisquare

from mmbignas.errors import ConfigError
from mmbignas.space import Gene, Genome, ModuleSpace, SearchSpace, Subnet
from tests.space.rules import BLOCK_NAMES, admissible, all_settings, combinations, config, spaces

PER_BLOCK = ('x', 'y')  # the elements of `spaces` that a module may have block by block
SMALL = spaces().filter(lambda space_of: combinations(space_of[1]) < 20000)  # that can be listed in no time


def model_space(space_of: tuple, image_sizes: Any = ()) -> SearchSpace:
    stages, elements = space_of
    return SearchSpace({'m': ModuleSpace(config(elements), stages, block_elements=PER_BLOCK, key='m')}, image_sizes)


def element(low: list, high: list, stride: Any, strategy: Any = 'stage_wise') -> dict:
    return dict(space=dict(min=low, max=high, stride=stride), sample_strategy=strategy)


def decisions(elements: dict[str, tuple], settings: dict[str, tuple]) -> dict[tuple, Any]:
    """What was free to be decided in a subnet of `spaces`: element, stage, block -> value."""
    depth_choices = elements['depth'][2]
    result: dict[tuple, Any] = {}
    for name, (strategy, _, choices) in elements.items():
        values = settings[name]
        if strategy in ('net_wise', 'net_wise_index'):
            if any(len(stage) > 1 for stage in choices):
                result[name, None, None] = values
            continue
        places = [(stage, None) for stage in range(len(choices))]
        if strategy in BLOCK_NAMES:
            places = [(stage, block) for stage, count in enumerate(settings['depth']) for block in range(count)]
        for (stage, block), value in zip(places, values):
            linked = (strategy == 'stage_wise_depth' and name != 'depth'
                      and len(choices[stage]) == len(depth_choices[stage]))
            if len(choices[stage]) > 1 and not linked:
                result[name, stage, block] = value
    return result


# -- genes -----------------------------------------------------------------------------------------------------------


@given(SMALL)
def test_vectors_hold_the_free_decisions(space_of: tuple) -> None:
    _, elements = space_of
    genome, members = Genome(model_space(space_of)), all_settings(elements)
    keys = [(gene.element, gene.stage, gene.block) for gene in genome.genes]
    assert len(set(keys)) == len(keys)
    assert set(keys) == {key for settings in members for key in decisions(elements, settings)}
    vectors = set()
    for settings in random.Random(0).sample(members, min(len(members), 100)):
        vector = genome.encode(Subnet({'m': settings}))
        assert {key: gene.choices[index] for key, gene, index in zip(keys, genome.genes, vector) if index != -1} == (
            decisions(elements, settings))
        assert genome.decode(vector) == Subnet({'m': settings})
        vectors.add(vector)
    assert len(vectors) == min(len(members), 100)


@hypothesis.settings(max_examples=40)
@given(spaces(most_stages=2))
def test_decode_gives_the_space_and_refuses_all_else(space_of: tuple) -> None:
    _, elements = space_of
    genome = Genome(model_space(space_of))
    vectors = list(itertools.product(*(range(len(gene.choices)) for gene in genome.genes)))
    assume(len(vectors) < 1500)
    found = set()
    for vector in vectors:
        try:
            found.add(genome.decode(vector))
        except ConfigError as error:
            assert 'by its ordering rule' in str(error)
    assert found == {Subnet({'m': settings}) for settings in all_settings(elements)}


def detector() -> SearchSpace:
    backbone = ModuleSpace(
        dict(depth=element([1, 2, 1], [2, 2, 3], 1),
             out_channel=element([8, 8, 16], [16, 8, 32], 8, 'stage_wise_depth'),
             kernel_size=element([3, 3, 3], [5, 3, 5], 2, 'block_wise'),
             expand_ratio=[0.5, 1, 1]), 3)
    neck = ModuleSpace(dict(depth=[2], out_channel=element([8], [24], 8, 'net_wise')), 1)
    return SearchSpace({'backbone': backbone, 'neck': neck}, [(32, 64), (64, 96)])


GENES = (
    Gene('backbone', 'depth', 0, None, (1, 2)),
    Gene('backbone', 'depth', 2, None, (1, 2, 3)),
    # the widths of the first and the last stage follow the depth, the second has one
    Gene('backbone', 'kernel_size', 0, 0, (3, 5)),
    Gene('backbone', 'kernel_size', 0, 1, (3, 5)),
    Gene('backbone', 'kernel_size', 2, 0, (3, 5)),
    Gene('backbone', 'kernel_size', 2, 1, (3, 5)),
    Gene('backbone', 'kernel_size', 2, 2, (3, 5)),
    Gene('neck', 'out_channel', None, None, ((8,), (16,), (24,))),
    Gene('', 'image_size', None, None, ((32, 64), (64, 96))),
)


def test_the_genes_of_a_detector() -> None:
    space = detector()
    genome = Genome(space)
    assert genome.genes == GENES
    subnet = space.canonical({
        'backbone': dict(depth=[1, 2, 2], out_channel=[8, 8, 24], kernel_size=[5, 3, 3, 3, 5]),
        'neck': dict(out_channel=[24]), 'image_size': [64, 96]})
    assert genome.encode(subnet) == (0, 1, 1, -1, 0, 1, -1, 2, 1)
    assert genome.decode((0, 1, 1, 99, 0, 1, None, 2, 1)) == subnet  # type: ignore[arg-type]


def test_one_image_size_has_no_gene() -> None:
    genome = Genome(detector().with_image_sizes([(32, 64)]))
    assert [gene.element for gene in genome.genes].count('image_size') == 0
    assert genome.decode(genome.encode(genome.space.max())).image_size is None


@pytest.mark.parametrize(('place', 'value', 'message'), [
    (0, 2, 'vector[0] for backbone.depth (stage 0) must be an integer from 0 to 1, got 2'),
    (2, 1.0, 'vector[2] for backbone.kernel_size (stage 0, block 0) must be an integer from 0 to 1, got 1.0'),
    (7, 3, 'vector[7] for neck.out_channel must be an integer from 0 to 2, got 3'),
    (8, None, 'vector[8] for image_size must be an integer from 0 to 1, got None'),
])
def test_vectors_refused(place: int, value: Any, message: str) -> None:
    genome = Genome(detector())
    vector: list[Any] = list(genome.encode(genome.space.max()))
    vector[place] = value
    with pytest.raises(ConfigError) as error:
        genome.decode(vector)
    assert str(error.value) == message
    with pytest.raises(ConfigError, match=r'^vector must be 9 indices, one per gene, got \[0, 0, 0\]$'):
        genome.decode([0, 0, 0])


def test_subnets_of_another_space_are_refused() -> None:
    genome = Genome(detector())
    other = Subnet({'backbone': {'depth': (1,)}})
    for use in (genome.encode, lambda subnet: list(genome.neighbours(subnet)),
                lambda subnet: genome.crossover(genome.space.max(), subnet, random.Random(0))):
        with pytest.raises(ConfigError, match=r'backbone\.depth must be a list of one value per stage \(3\), got'):
            use(other)


# -- neighbours ------------------------------------------------------------------------------------------------------


def is_neighbour(elements: dict[str, tuple], first: dict[str, tuple], second: dict[str, tuple]) -> bool:
    """Whether exactly one decision of ``first`` is another in ``second``, and what follows from it follows."""
    before, after = decisions(elements, first), decisions(elements, second)
    if first['depth'] == second['depth']:
        return sum(before[key] != after[key] for key in before) == 1
    changed = [key for key, value in before.items() if key[0] == 'depth' and after[key] != value]
    if len(changed) != 1:
        return False
    for name, (strategy, _, _) in elements.items():
        if name == 'depth':
            continue
        if strategy not in BLOCK_NAMES:
            if any(after[key] != value for key, value in before.items() if key[0] == name):
                return False
            continue
        old, new = list(first[name]), list(second[name])
        for old_count, new_count in zip(first['depth'], second['depth']):
            own = [old.pop(0) for _ in range(old_count)]
            while len(own) < new_count:
                own.append(own[-1])
            if [new.pop(0) for _ in range(new_count)] != own[:new_count]:
                return False
    return True


@hypothesis.settings(max_examples=60)
@given(SMALL, st.integers(0, 10**6))
def test_neighbours_are_the_brute_force_ones(space_of: tuple, seed: int) -> None:
    _, elements = space_of
    members = all_settings(elements)
    genome, rng = Genome(model_space(space_of)), random.Random(seed)
    for settings in (members[0], members[-1], rng.choice(members)):
        found = list(genome.neighbours(Subnet({'m': settings})))
        assert len(set(found)) == len(found)
        assert set(found) == {Subnet({'m': other}) for other in members if is_neighbour(elements, settings, other)}


def test_neighbours_change_one_module_or_the_image_size() -> None:
    space = detector()
    subnet = space.canonical({'backbone': space.modules['backbone'].min(), 'neck': dict(out_channel=[16]),
                              'image_size': [64, 96]})
    found = list(Genome(space).neighbours(subnet))
    others = [neighbour for neighbour in found if neighbour['backbone'] == subnet['backbone']]
    assert {(neighbour['neck']['out_channel'], neighbour.image_size) for neighbour in others} == {
        ((8,), (64, 96)), ((24,), (64, 96)), ((16,), (32, 64))}
    assert len(others) == 3
    assert {neighbour.image_size for neighbour in found if neighbour not in others} == {(64, 96)}


# -- crossover -------------------------------------------------------------------------------------------------------


@hypothesis.settings(max_examples=80)
@given(SMALL, st.integers(0, 10**6))
def test_a_child_has_every_gene_from_a_parent(space_of: tuple, seed: int) -> None:
    _, elements = space_of
    space, rng = model_space(space_of), random.Random(seed)
    genome = Genome(space)
    for _ in range(5):
        first, second = (space.sample_uniform(rng) for _ in range(2))
        child = genome.crossover(first, second, rng)
        assert space.canonical(child) == child
        known = [decisions(elements, parent['m']) for parent in (first, second)]  # type: ignore[arg-type]
        depth = child['m']['depth']
        for (name, *place), value in decisions(elements, child['m']).items():  # type: ignore[arg-type]
            own = [parent[(name, *place)] for parent in known if (name, *place) in parent]
            if value not in own:
                # open only to a block that one parent has, and only where nothing else fits
                strategy, kwargs, choices = elements[name]
                assert len(own) == 1
                assert strategy == 'ordered_block_wise'
                assert not any(
                    all(other in [parent[key] for parent in known if key in parent]
                        for key, other in decisions(elements, {**child['m'], name: values}).items() if key[0] == name)
                    for values in admissible(name, choices, depth, elements['depth'][2], **kwargs))


def ordered_kernels() -> SearchSpace:
    return SearchSpace({'m': ModuleSpace(
        dict(depth=element([1, 1], [2, 2], 1), kernel_size=element([3, 3], [7, 7], 2, 'ordered_block_wise')), 2)})


def test_blocks_that_do_not_fit_between_the_others_are_open() -> None:
    """Both stages as deep as in one parent, and 7 before 5: only other kernels fit."""
    space, rng = ordered_kernels(), random.Random(0)
    first = space.canonical({'m': dict(depth=[2, 1], kernel_size=[3, 7, 7])})
    second = space.canonical({'m': dict(depth=[1, 2], kernel_size=[3, 3, 5])})
    children = {Genome(space).crossover(first, second, rng) for _ in range(200)}
    deep = {child['m']['kernel_size'] for child in children if child['m']['depth'] == (2, 2)}
    assert deep == {(3, *middle, last) for last in (3, 5, 7) for middle in itertools.product((3, 5, 7), (3, 7))
                    if middle[0] <= middle[1] <= last}
    assert {child['m']['depth'] for child in children} == {(1, 1), (1, 2), (2, 1), (2, 2)}
    assert {child['m']['kernel_size'] for child in children if child['m']['depth'] == (1, 1)} == {(3, 3), (3, 7)}


def test_children_are_drawn_uniformly_from_the_combinations() -> None:
    space, rng = detector(), random.Random(0)
    first = space.canonical({'backbone': dict(depth=[1, 2, 1], kernel_size=[3, 3, 3, 3], out_channel=[8, 8, 16]),
                             'neck': dict(out_channel=[8]), 'image_size': [32, 64]})
    second = space.canonical({'backbone': dict(depth=[1, 2, 3], kernel_size=[3, 3, 3, 5, 5, 5],
                                               out_channel=[8, 8, 32]),
                              'neck': dict(out_channel=[24]), 'image_size': [64, 96]})
    counts = Counter(Genome(space).crossover(first, second, rng) for _ in range(4000))
    shallow = [((1, 2, 1), (3, 3, 3, kernel)) for kernel in (3, 5)]
    deep = [((1, 2, 3), (3, 3, 3, kernel, 5, 5)) for kernel in (3, 5)]
    expected = [(*backbone, width, size) for backbone in (*shallow, *deep) for width in ((8,), (24,))
                for size in ((32, 64), (64, 96))]
    found = {(child['backbone']['depth'], child['backbone']['kernel_size'], child['neck']['out_channel'],
              child.image_size): count for child, count in counts.items()}
    assert set(found) == set(expected)
    assert chisquare(list(found.values())).pvalue > 0.001


@given(spaces(), st.integers(0, 10**6))
def test_children_of_equal_parents_are_the_parent(space_of: tuple, seed: int) -> None:
    space, rng = model_space(space_of, [(32, 32), (64, 64)]), random.Random(seed)
    parent = space.sample(rng)
    assert Genome(space).crossover(parent, parent, rng) == parent
