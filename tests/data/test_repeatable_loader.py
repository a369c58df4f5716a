"""Training data by the number of the batch."""
import random

import numpy as np
import pytest
import torch
from mmengine.runner import Runner
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from mmbignas.data.repeatable_loader import RepeatableLoader
from mmbignas.errors import ConfigError
from mmbignas.utils.random_states import mixed_seed, seed_process


def numpy_draw():
    return np.random.rand()  # noqa: NPY002 (what MMEngine's transforms draw from)


class Noisy(Dataset):
    """Item ``i`` is ``i`` and three random numbers, of which it draws more or fewer."""

    metainfo = dict(classes=('a', ))

    def __init__(self, size=10):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        torch.rand(index)
        return torch.tensor([index, random.random(), numpy_draw(), torch.rand(()).item()], dtype=torch.float64)


def build(rank=0, dataset=None, shuffle=True, infinite=False, sampler_seed=None, built_with=9, **kwargs):
    sampler = dict(type='InfiniteSampler' if infinite else 'DefaultSampler', shuffle=shuffle)
    if sampler_seed is not None:
        sampler['seed'] = sampler_seed
    cfg = dict(batch_size=3, num_workers=0, sampler=sampler, collate_fn=dict(type='default_collate'))
    loader = Runner.build_dataloader({**cfg, 'dataset': dataset or Noisy(), **kwargs}, seed=built_with)
    return RepeatableLoader(loader, rank, sampler_seed is not None)


def epoch(loader, number=0, skip=0, seed=5):
    loader.begin(seed, number, skip)
    return list(loader)


def assert_same(first, second):
    assert len(first) == len(second)
    for ours, theirs in zip(first, second):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize('workers', [dict(num_workers=0), dict(num_workers=1), dict(num_workers=3),
                                     dict(num_workers=2, persistent_workers=True)])
def test_number_of_workers_does_not_matter(workers):
    """Nor what was drawn before, nor the epoch that persistent workers have behind them."""
    whole = epoch(build())
    assert [len(batch) for batch in whole] == [3, 3, 3, 1]
    loader = build(**workers)
    epoch(loader, 40)
    seed_process(1)
    assert_same(epoch(loader), whole)
    assert sorted(torch.cat(whole)[:, 0].tolist()) == list(range(10))


def test_each_image_of_each_epoch_has_its_own_augmentations():
    values = torch.cat(epoch(build(shuffle=False)) + epoch(build(shuffle=False), 4)
                       + epoch(build(shuffle=False), seed=6) + epoch(build(1, shuffle=False)))
    assert values[:10, 0].tolist() == values[10:20, 0].tolist()
    assert len(values.unique(dim=0)) == 40
    for column in (1, 2, 3):
        assert len(values[:, column].unique()) == 40


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('skip', [1, 3, 4])
def test_beginning_amid_an_epoch(workers, skip):
    whole = epoch(build(), 8)
    rest = epoch(build(num_workers=workers), 8, skip)
    assert rest[:skip] == [None] * skip
    assert_same(rest[skip:], whole[skip:])


class Counting(Noisy):
    loaded: list = []  # of the class, as the data set is copied

    def __getitem__(self, index):
        self.loaded.append(index)
        return super().__getitem__(index)


@pytest.mark.parametrize('infinite', [False, True])
def test_skipped_images_are_not_loaded(infinite):
    Counting.loaded.clear()
    loader = build(dataset=Counting(), infinite=infinite)
    loader.begin(5, 0, 3)
    batches = iter(loader)
    assert [next(batches) for _ in range(3)] == [None] * 3
    assert not Counting.loaded
    assert next(batches)[:, 0].tolist() == Counting.loaded


@pytest.mark.parametrize('workers', [0, 2])
def test_endless_data(workers):
    def take(count, skip):
        loader = build(infinite=True, num_workers=workers)
        loader.begin(5, 0, skip)
        batches = iter(loader)
        return [next(batches) for _ in range(count)]

    whole = take(9, 0)
    assert_same(take(9, 5)[5:], whole[5:])
    assert len(torch.cat(whole)[:, 1].unique()) == 27


def test_seed_of_the_sampler():
    """It is the run's, after a resume not the one that the dataloader was built with; or one of its own."""
    assert_same(epoch(build(built_with=1)), epoch(build(built_with=2)))
    orders = [torch.cat(epoch(build(sampler_seed=own), seed=seed))[:, 0].tolist() for own in (3, 4) for seed in (5, 6)]
    assert orders[0] == orders[1] != orders[2] == orders[3]
    orders = [torch.cat(epoch(build(), seed=seed))[:, 0].tolist() for seed in (5, 6)]
    assert orders[0] != orders[1]


def test_it_is_the_data_set_that_was_given():
    loader = build(dataset=Noisy(7))
    assert loader.dataset.metainfo == Noisy.metainfo
    assert loader.dataset.size == len(loader.dataset) == 7
    assert len(loader) == 3
    assert loader.batch_sampler.sampler.shuffle and loader.batch_sampler.batch_size == 3
    assert loader.dataset[2][0] == 2


def test_a_data_set_with_fetching_of_its_own():
    """torch's ``Subset`` has ``__getitems__``."""
    assert_same(epoch(build(dataset=Subset(Noisy(), range(10)))), epoch(build()))


def test_data_without_numbers_are_refused():
    class Stream(IterableDataset):
        def __iter__(self):
            yield from range(3)

    for loader in (DataLoader(Stream()), DataLoader(Noisy(), batch_size=None)):
        with pytest.raises(ConfigError, match='train_dataloader.dataset must be a data set .*, got .(Stream|Noisy)'):
            RepeatableLoader(loader, 0, False)


def test_mixed_seeds():
    seeds = {mixed_seed(*numbers) for numbers in ((0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1), (1, 0), (2**40, 3))}
    assert len(seeds) == 6
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert mixed_seed(3, 4) == mixed_seed(3, 4)


def test_seeding_a_process():
    def draw():
        return random.random(), numpy_draw(), torch.rand(()).item()

    seed_process(7)
    first = draw()
    draw()
    seed_process(7)
    assert draw() == first


class Weighted:
    """A sampler that draws from the three global generators, as users write them."""

    def __init__(self, dataset, seed=None):
        self.size = len(dataset)

    def __iter__(self):
        for index in torch.multinomial(torch.arange(1., self.size + 1), self.size, True).tolist():
            yield (index + random.randrange(3) + int(3 * numpy_draw())) % self.size

    def __len__(self):
        return self.size


@pytest.mark.parametrize('workers', [dict(num_workers=0), dict(num_workers=2), dict(num_workers=2, prefetch_factor=5)])
@pytest.mark.parametrize('skip', [0, 1, 3])
def test_a_sampler_that_draws_from_the_global_generators(skip, workers):
    whole = epoch(build(sampler=dict(type=Weighted)), 8)
    seed_process(123)
    before = torch.get_rng_state()
    rest = epoch(build(sampler=dict(type=Weighted), **workers), 8, skip)
    assert_same(rest[skip:], whole[skip:])
    other = epoch(build(sampler=dict(type=Weighted)), 12)
    assert torch.cat(other)[:, 0].tolist() != torch.cat(whole)[:, 0].tolist()
    assert len(before) == len(torch.get_rng_state())


class Piped(Noisy):
    """A data set with a pipeline that hooks replace."""

    pipeline = 0

    def __getitem__(self, index):
        return torch.tensor([index, self.pipeline])


@pytest.mark.parametrize('persistent', [False, True])
def test_what_hooks_set_reaches_the_data_set(persistent):
    """As MMDetection's PipelineSwitchHook does, also with persistent workers."""
    loader = build(dataset=Piped(), shuffle=False, num_workers=2, persistent_workers=persistent)
    assert torch.cat(epoch(loader))[:, 1].tolist() == [0] * 10
    loader.dataset.pipeline = 7
    if persistent:
        loader._DataLoader__initialized = False
        loader._iterator = None
        loader._DataLoader__initialized = True
    assert torch.cat(epoch(loader, 4))[:, 1].tolist() == [7] * 10
    assert loader.dataset.dataset.pipeline == 7


def test_hooks_find_what_the_config_says():
    loader = build(drop_last=True)
    assert (loader.batch_size, loader.drop_last) == (3, True)
    assert type(loader.sampler).__name__ == 'DefaultSampler' and loader.sampler is loader.batch_sampler.sampler
    loader.batch_sampler.batch_size = 5
    assert [len(batch) for batch in epoch(loader)] == [5, 5]
