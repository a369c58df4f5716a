"""The image size as one more dimension of a space."""
from __future__ import annotations

import json
import pickle
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest

from mmbignas.errors import ConfigError
from mmbignas.space import ModuleSpace, SearchSpace, Subnet

SIZES = [(64, 96), (32, 32), (96, 64), (48, 48)]
ASCENDING = ((32, 32), (48, 48), (64, 96), (96, 64))


def space(image_sizes: Any = ()) -> SearchSpace:
    depth = dict(space=dict(min=[1], max=[3], stride=1), sample_strategy='stage_wise')
    return SearchSpace({'m': ModuleSpace(dict(depth=depth), 1)}, image_sizes)


def settings(depth: int, **more: Any) -> dict[str, Any]:
    return {'m': dict(depth=[depth]), **more}


def test_sizes_ascend_by_area() -> None:
    assert space(SIZES).image_sizes == ASCENDING
    assert space([list(size) for size in SIZES]).image_sizes == ASCENDING
    assert space([(10, 100), (20, 20)]).image_sizes == ((20, 20), (10, 100))
    assert space(np.array(SIZES).tolist()).image_sizes == ASCENDING
    assert space([(np.int64(8), 4)]).image_sizes == ((8, 4),)
    assert type(space([(np.int64(8), 4)]).image_sizes[0][0]) is int
    assert space().image_sizes == ()


def test_the_extremes_and_the_middle() -> None:
    own = space(SIZES)
    assert (own.min().image_size, own.middle().image_size, own.max().image_size) == ((32, 32), (64, 96), (96, 64))
    assert own.size == 12
    assert own.with_image_sizes(SIZES[:2]).size == 6
    assert own.with_image_sizes([]).size == own.with_image_sizes(SIZES[:1]).size == 3
    assert [subnet.image_size for subnet in own.traverse()] == list(ASCENDING) * 3


def test_the_image_size_makes_a_subnet_another() -> None:
    own = space(SIZES)
    first, second = (own.canonical(settings(2, image_size=size)) for size in ([32, 32], (64, 96)))
    assert first.image_size == (32, 32)
    assert first != second
    assert len({first, second, own.canonical(settings(2, image_size=(32, 32)))}) == 2
    assert first != space().canonical(settings(2))
    assert first['m'] == second['m'] == {'depth': (2,)}
    assert list(first) == ['m']
    assert len(first) == 1
    assert first.to_dict() == settings(2, image_size=[32, 32])
    assert 'image_size' not in space().max().to_dict()
    assert str([32, 32]) in repr(first)
    for again in (own.canonical(first), own.canonical(json.loads(json.dumps(first.to_dict()))),
                  pickle.loads(pickle.dumps(first)), Subnet(first, (32, 32))):
        assert again == first
        assert hash(again) == hash(first)


def test_draws() -> None:
    own, rng = space(SIZES), random.Random(0)
    counts = Counter(own.sample(rng).image_size for _ in range(4000))
    assert set(counts) == set(ASCENDING)
    assert all(900 < count < 1100 for count in counts.values())
    # the modules come first, so they are the same with and without image sizes
    assert all(own.sample(random.Random(seed))['m'] == space().sample(random.Random(seed))['m'] for seed in range(20))
    assert own.sample(random.Random(5)) == own.sample(random.Random(5))


def test_a_single_size_is_no_choice() -> None:
    for own in (space([(32, 48)]), space()):
        for subnet in (own.max(), own.min(), own.middle(), own.sample(random.Random(0)), own[1],
                       own.canonical(settings(1))):
            assert subnet.image_size is None
    own = space([(32, 48)])
    assert own.canonical(settings(1, image_size=[32, 48])) == own.min() == space().min()


@pytest.mark.parametrize(('sizes', 'given_as', 'message'), [
    (SIZES, {}, 'subnet settings: image_size is missing; give one of [[32, 32], [48, 48], [64, 96], [96, 64]]'),
    (SIZES, dict(image_size=[32, 48]),
     'image_size must be one of [[32, 32], [48, 48], [64, 96], [96, 64]], got [32, 48]'),
    (SIZES, dict(image_size=None), 'image_size must be [height, width] in pixels, two integers >= 1, got None'),
    ([(8, 8)], dict(image_size=[8, 9]), 'image_size must be one of [[8, 8]], got [8, 9]'),
    ([], dict(image_size=[8, 8]), 'image_size must be left out, since there is no choice of image sizes here (give '
     'test_cfg.image_size, or train_cfg.image_size_list in a training, several to get one), got [8, 8]'),
])
def test_settings_refused(sizes: Any, given_as: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        space(sizes).canonical(settings(1, **given_as))
    assert str(error.value) == message


@pytest.mark.parametrize(('sizes', 'message'), [
    ([(32, 32), (32, 32)], 'a list of different [height, width], got [(32, 32), (32, 32)]'),
    ([(32,)], '[height, width] in pixels, two integers >= 1, got (32,)'),
    ([(32, 32.0)], '[height, width] in pixels, two integers >= 1, got (32, 32.0)'),
    ([768, 1344], '[height, width] in pixels, two integers >= 1, got 768'),
    ('768', "a list of [height, width], got '768'"),
    (None, 'a list of [height, width], got None'),
])
def test_sizes_refused(sizes: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        space(sizes)
    assert str(error.value) == f'image_size must be {message}'
