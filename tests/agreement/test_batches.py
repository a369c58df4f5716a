"""How many images batches have, against what the dataloaders yield."""
from __future__ import annotations

import pytest
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import BatchSampler, DataLoader

from mmbignas.agreement.batches import batch_lines, smallest_batch
from mmbignas.data.repeatable_loader import RepeatableLoader
from tests.toy import ToyDataset


def loader(count, size, drop_last=False, sampler=DefaultSampler):
    return DataLoader(ToyDataset(count), batch_size=size, drop_last=drop_last, sampler=sampler(ToyDataset(count)))


@pytest.mark.parametrize('count', [1, 6, 7, 11, 12])
@pytest.mark.parametrize('drop_last', [False, True])
@pytest.mark.parametrize('wrap', [lambda own: own, lambda own: RepeatableLoader(own, 0, False)])
def test_smallest_batch(count, drop_last, wrap):
    own = wrap(loader(count, 6, drop_last))
    if isinstance(own, RepeatableLoader):
        own.begin(0, 0)
    yielded = [len(batch['inputs']) for batch in own]
    assert smallest_batch(own) == min(yielded, default=6)


def test_where_the_last_batch_of_an_epoch_does_not_come():
    assert smallest_batch(loader(7, 6, sampler=InfiniteSampler)) == 6
    assert [smallest_batch(loader(7, 6), iterations) for iterations in (1, 2)] == [6, 1]


def test_no_batch_at_all():
    """MMEngine's loop would end at once, with an untrained checkpoint."""
    own = loader(24, 64, True)
    assert len(own) == 0
    assert list(batch_lines(own, 'train_dataloader')) == [
        'train_dataloader.batch_size must be at most 24, the number of images for each process, with drop_last=True, '
        'got 64']
    empty = DataLoader(ToyDataset(0), batch_sampler=BatchSampler([], 2, False))
    assert list(batch_lines(empty, 'val_dataloader')) == ['val_dataloader.dataset must have images, got none']
    for own in (loader(24, 24, True), loader(24, 64), loader(7, 6, sampler=InfiniteSampler)):
        assert list(batch_lines(own, 'train_dataloader')) == []
