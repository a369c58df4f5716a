"""Everything that does not fit is said at once, once for each stage, in every loop."""
from __future__ import annotations

from typing import Any

import pytest
import torch

from mmbignas.agreement import AgreementHook, agreement_hook, agreement_of
from mmbignas.errors import ConfigError
from tests.agreement.small_data import write_coco
from tests.toy import ToyDataset, ToyModel, ToyRunner, build_runner, dataloader


class Named(ToyDataset):
    """A toy's data set with other classes."""

    def __init__(self, size: int, classes: str, seed: int = 0) -> None:
        super().__init__(size, seed)
        self.metainfo = dict(classes=tuple(classes))


def runner_of(folder: Any, train: str = 'abcde', val: str = 'abcde', training: Any = (), **options: Any) -> ToyRunner:
    loaders = {stage: {**dataloader(12), 'dataset': Named(12, classes)}
               for stage, classes in (('train', train), ('val', val), ('test', val))}
    loaders['train'].update(dict(training))
    own = {f'{stage}_dataloader': loader for stage, loader in loaders.items()
           if stage == 'train' or f'{stage}_cfg' in options}
    return build_runner(folder, options.pop('model', None), **options, **own)


def test_all_at_once(tmp_path):
    """The head, the validation's classes, and a validation without a batch."""
    model = ToyModel()
    model.head.num_classes = 5
    runner = runner_of(tmp_path, 'abcd', 'abdc', model=model, val_cfg={})
    runner._val_dataloader.update(batch_size=64, drop_last=True)
    with pytest.raises(ConfigError) as error:
        runner.train()
    assert [line.partition(' ')[0] for line in str(error.value).split('\n')] == [
        'model.head.num_classes', 'val_dataloader.dataset:', 'val_dataloader.batch_size']


def test_a_training_without_a_batch(tmp_path):
    """MMEngine's loop would end at once, with an untrained checkpoint."""
    for drop_last, fits in ((False, True), (True, False)):
        runner = runner_of(tmp_path, training=dict(batch_size=64, drop_last=drop_last), param_scheduler=dict(
            type='LinearLR', start_factor=.1, by_epoch=True, convert_to_iter_based=True, end=1))
        if fits:
            runner.train()
        else:
            with pytest.raises(ConfigError, match='^train_dataloader.batch_size must be at most 12, .* got 64$'):
                runner.train()


@pytest.mark.parametrize('train_cfg', [{}, dict(type='mmbignas.SandwichIterTrainLoop', max_iters=2),
                                       dict(type='EpochBasedTrainLoop', max_epochs=1)])
@pytest.mark.parametrize('val_cfg', [{}, dict(type='ValLoop'), dict(
    type='mmbignas.SampleAccuracyLoop', image_size=[6, 6], subnet_count=1, predicted_count=0)])
def test_loops_of_training(tmp_path, train_cfg, val_cfg):
    """A plain loop has the hook from a loop of this package beside it, or from the tools."""
    runner = runner_of(tmp_path, val='abced', train_cfg=train_cfg, val_cfg=val_cfg)
    agreement_of(runner)
    if val_cfg == dict(type='ValLoop'):
        del runner._val_loop['calib_bn']
    with pytest.raises(ConfigError, match=r"^val_dataloader.dataset: classes .* label 3 is 'e' instead of 'd'"):
        runner.train()


def test_once_for_each_stage(tmp_path, monkeypatch):
    tried = []
    monkeypatch.setattr(agreement_hook, '_trial', lambda runner, stage, loop: tried.append(stage) or [])
    runner = runner_of(tmp_path, val_cfg={}, test_cfg={}, train_cfg=dict(max_epochs=2))
    runner.train()
    assert tried == ['train', 'val']
    runner.test()
    runner.val()
    assert tried == ['train', 'val', 'test']
    assert sum(isinstance(hook, AgreementHook) for hook in runner.hooks) == 1


def test_a_test_alone(tmp_path):
    runner = runner_of(tmp_path, val='abced', test_cfg={})
    runner.test()
    torch.save(dict(state_dict=ToyModel().state_dict(), meta=dict(dataset_meta=dict(classes=list('abcde')))),
               tmp_path / 'x.pth')
    for classes, fits in (('abcde', True), ('abced', False)):
        runner = runner_of(tmp_path, val=classes, test_cfg={}, load_from=str(tmp_path / 'x.pth'))
        if fits:
            runner.test()
        else:
            with pytest.raises(ConfigError, match=rf'^test_dataloader.dataset: classes must be those of {tmp_path}/x'):
                runner.test()


def test_a_training_may_begin_with_weights_of_other_classes(tmp_path):
    torch.save(dict(state_dict=ToyModel().state_dict(), meta=dict(dataset_meta=dict(classes=list('vwxyz')))),
               tmp_path / 'x.pth')
    runner_of(tmp_path, load_from=str(tmp_path / 'x.pth')).train()


def test_files_of_training_and_validation(tmp_path):
    """Another order in the file of the validation alone, in the data set and in the metric."""
    from mmdet.evaluation.metrics import CocoMetric
    val = write_coco(tmp_path / 'val', ('rod', 'cell', 'dot'), without=('iscrowd', ))
    ann_file = f'{tmp_path}/val/a.json'
    runner = runner_of(tmp_path, training=dict(dataset=write_coco(tmp_path / 'train')),
                       val_cfg={}, metric=CocoMetric(ann_file=ann_file))
    runner._val_dataloader['dataset'] = dict(val, test_mode=True)
    with pytest.raises(ConfigError) as error:
        runner.train()
    found = str(error.value).split('\n')
    assert [line.partition(': ')[0] for line in found] == [
        'val_dataloader.dataset.ann_file', 'val_evaluator.ann_file']
    assert "label 0 is 'rod' instead of 'cell'" in found[0] and "'iscrowd'" in found[1]
