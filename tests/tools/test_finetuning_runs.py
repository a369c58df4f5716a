"""Fine-tuning of one network, in whole runs of the tools."""
import json
import math
import os
import re
import signal
from unittest.mock import patch

import pytest
import torch

from tests.runs import MMDET_TOOLS, ROOT, assert_same_state, python, records_of

pytestmark = pytest.mark.slow
CONFIG = """
_base_ = {base!r}
custom_imports = dict(imports=['mmbignas', 'tests.killing'])
metainfo = dict(classes=('circle', 'square', 'triangle'))
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False, dataset=dict(
    data_root={data!r}, data_prefix=dict(img='train/'), metainfo=metainfo, pipeline=[
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs')]))
val_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False, dataset=dict(
    data_root={data!r}, ann_file='annotations/val.json', data_prefix=dict(img='val/'), metainfo=metainfo, pipeline=[
        dict(type='LoadImageFromFile'), dict(type='Resize', scale=(128, 128), keep_ratio=True),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file={data!r} + '/annotations/val.json')
test_evaluator = val_evaluator
model = dict(bbox_head=dict(anchor_generator=dict(scales=[3, 4])), test_cfg=dict(score_thr=0., nms_pre=50))
train_cfg = dict(max_epochs=3)
param_scheduler = [dict(type='CosineAnnealingLR', begin=0, end=3, by_epoch=True, convert_to_iter_based=True)]
custom_hooks = [
    dict(type='mmbignas.KillingHook'),
    dict(type='mmbignas.CalibrateFirstHook', num_images=8),
    dict(type='mmbignas.ValidateFirstHook'),
    dict(type='mmbignas.DistillHook', teacher=dict(config={teacher!r}, checkpoint={checkpoint!r}, num_images=8),
         jobs=dict(cls=dict(mimic_name='bbox_head.retina_cls', loss=dict(type='mmbignas.DenseKLLoss')))),
]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=-1), logger=dict(interval=1))
randomness = dict(seed=0)
"""


@pytest.fixture(scope='module')
def config(workspace, whole):
    """The shipped config of fine-tuning, on other data, with the largest subnet as the teacher."""
    path = workspace / 'finetune.py'
    path.write_text(CONFIG.format(
        base=str(ROOT / 'configs' / 'retinanet_r18_finetune_subnet_bccd.py'), data=f'{workspace}/data',
        teacher=f'{workspace}/config.py', checkpoint=f'{whole}/epoch_2.pth'))
    return path


def train(config, folder, whole, *options, tool='tools/train.py', **kwargs):
    with patch.dict(os.environ, SUPERNET_CHECKPOINT=str(whole / 'epoch_2.pth')):
        return python(tool, config, '--work-dir', folder, *options, **kwargs)


@pytest.fixture(scope='module')
def finetuned(workspace, whole, config):
    """A run without interruption, and what it wrote."""
    return workspace / 'finetuned', train(config, workspace / 'finetuned', whole)


def scalars_of(folder):
    return [json.loads(line) for line in next(folder.glob('*/vis_data/scalars.json')).read_text().splitlines()]


def summary_of(output):
    """Metric -> its values before and after, as numbers."""
    lines = output[output.index('Validation before -> after training'):].splitlines()
    found = [re.fullmatch(r'  (coco/\w+): (\S+) -> (\S+)', line) for line in lines]
    return {match[1]: (float(match[2]), float(match[3])) for match in found if match}


def test_accuracy_before_and_after(whole, finetuned):
    """Before, it is that of the calibrated subnet in the supernet."""
    folder, output = finetuned
    scalars = scalars_of(folder)
    validations = {line['step']: line for line in scalars if 'coco/bbox_mAP' in line}
    assert list(validations) == [0, 1, 2, 3]
    assert scalars[0] is validations[0]
    [expected] = [line['metrics'] for line in records_of(whole, 'val') if line['name'] == 'min_calib']
    assert {name: validations[0][name] for name in expected} == expected
    summary = summary_of(output)
    assert summary.keys() == expected.keys()
    for name, values in summary.items():
        assert values == pytest.approx((validations[0][name], validations[3][name]), abs=5e-5)
    assert f'last_ckpt: {folder}/epoch_3.pth' in output
    assert f'best_ckpt: {folder}/best_coco_bbox_mAP_epoch_' in output
    assert output.index('BN calibration before training') < output.index('Validation before training')


def test_training(finetuned):
    losses = [line for line in scalars_of(finetuned[0]) if 'loss' in line]
    assert [line['step'] for line in losses] == list(range(1, 10))
    rates = [.5 * 2e-4 * (1 + math.cos(math.pi * iteration / 9)) for iteration in range(9)]
    assert [line['lr'] for line in losses] == pytest.approx(rates, rel=1e-4)
    for line in losses:
        assert line['loss'] == pytest.approx(line['loss_cls'] + line['loss_bbox'] + line['loss_distill_cls'], rel=1e-4)
    assert losses[0]['loss_distill_cls'] > 0


def test_killed_and_resumed_by_mmdetections_own_tool(workspace, whole, config, finetuned):
    """``kill -9`` in the second epoch: the run goes on from the first one's end, and ends as if nothing had been."""
    folder = workspace / 'finetune_killed'
    train(config, folder, whole, '--cfg-options', 'custom_hooks.0.iteration=4', code=-signal.SIGKILL)
    assert not (folder / 'epoch_2.pth').exists()
    output = train(config, folder, whole, '--resume', tool=MMDET_TOOLS / 'train.py')
    assert 'resumed epoch: 1, iter: 3' in output
    assert 'Validation before training' not in output and 'calibration before training' not in output
    ours, theirs = (torch.load(own / 'epoch_3.pth') for own in (folder, finetuned[0]))
    assert_same_state(ours['state_dict'], theirs['state_dict'])
    assert ours['optimizer']['param_groups'] == theirs['optimizer']['param_groups']
    for number, state in ours['optimizer']['state'].items():
        assert_same_state(state, theirs['optimizer']['state'][number])
    assert summary_of(output) == summary_of(finetuned[1])


def test_testing_needs_no_supernet(workspace, config, finetuned):
    """Of no checkpoint but the one that is tested."""
    folder = workspace / 'finetune_test'
    with patch.dict(os.environ, SUPERNET_CHECKPOINT='/none.pth'):
        python('tools/test.py', config, finetuned[0] / 'epoch_3.pth', '--work-dir', folder)
    tested = json.loads(next(folder.glob('*/*.json')).read_text())
    last = [line for line in scalars_of(finetuned[0]) if line['step'] == 3 and 'coco/bbox_mAP' in line][0]
    assert {name: value for name, value in tested.items() if name.startswith('coco/')} == {
        name: value for name, value in last.items() if name.startswith('coco/')}
