"""Whole runs on a tiny data set, in processes of their own."""
import json
from importlib.metadata import packages_distributions
from pathlib import Path

import mmdet
import torch

from tests.processes import ROOT, launch, python

__all__ = ['CONFIG', 'MMDET_TOOLS', 'ROOT', 'assert_same_state', 'launch', 'make_workspace', 'mim_name', 'passes_of',
           'python', 'records_of']
MMDET_TOOLS = Path(mmdet.__file__).parent / '.mim' / 'tools'
CONFIG = """
_base_ = {base!r}
custom_imports = dict(imports=['mmbignas', 'tests.recording'])
train_dataloader = dict(batch_size=4, dataset=dict(data_root={data!r}, pipeline=[
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs')]))
val_dataloader = dict(batch_size=4, dataset=dict(data_root={data!r}))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file={data!r} + '/annotations/val.json')
test_evaluator = val_evaluator
model = dict(test_cfg=dict(score_thr=0., nms_pre=50))
train_cfg = dict(max_epochs=2, val_interval=2)
test_cfg = dict(subnets=['max', 'random'])
custom_hooks = [
    dict(type='mmbignas.RecordingHook'),
    dict(type='mmbignas.BNCalibrationHook', num_images=8),
    dict(type='mmbignas.RegularizeLargestHook'),
    dict(type='mmbignas.DistillHook', jobs=dict(
        p6=dict(mimic_name='neck.fpn_convs.3.conv', loss=dict(type='mmbignas.FeatureMSELoss')))),
]
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=-1), logger=dict(interval=1))
"""


def make_workspace(folder):
    """Fill a folder with the data and the config of the runs."""
    python('tools/make_shapes.py', folder / 'data', '--train', 12, '--val', 4, '--size', 64)
    text = CONFIG.format(base=str(ROOT / 'configs' / 'shapes_supnet.py'), data=f'{folder}/data')
    (folder / 'config.py').write_text(text)


def mim_name(package):
    """The name that mim knows an installed package by: that of its distribution, which the forks have of their own."""
    return packages_distributions()[package][0]


def passes_of(folder, rank=0):
    return [json.loads(line) for line in (folder / f'passes{rank}.jsonl').read_text().splitlines()]


def records_of(folder, stage):
    """The lines that the last run in a folder wrote."""
    file = sorted(folder.glob(f'*/subnets_{stage}.jsonl'))[-1]
    return [json.loads(line) for line in file.read_text().splitlines()]


def assert_same_state(first, second, only=''):
    assert first.keys() == second.keys()
    for name, value in first.items():
        if only in name:
            assert torch.equal(value, second[name]), name
