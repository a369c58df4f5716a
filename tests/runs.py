"""Whole runs on a tiny data set, in processes of their own."""
import json
import os
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import mmdet
import torch

ROOT = Path(__file__).parents[2]
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


def python(*args, code=0, timeout=240, cwd=ROOT):
    """Run Python with these arguments, see that it ends with ``code``, and return what it wrote."""
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore'}
    done = subprocess.run([sys.executable, *map(str, args)], env=environment, cwd=cwd, timeout=timeout,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == code, done.stdout[-3000:]
    return done.stdout


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
