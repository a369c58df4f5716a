"""A stock classifier as a family, by a config without the tool: trained, evaluated, calibrated, exported."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.runs import python, records_of

pytestmark = pytest.mark.slow

CONFIG = """
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mmbignas'])
data_preprocessor = dict(num_classes=3, mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True)
model = dict(
    type='mmbignas.Elastic', of='mmpretrain.ImageClassifier', width=dict(ratios=[0.5, 1.0], divisor=4),
    depth='residual', example=32,
    backbone=dict(type='MobileNetV2', widen_factor=0.25), neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=3, in_channels=1280, loss=dict(type='CrossEntropyLoss')))
pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=32), dict(type='PackInputs')]
train_dataloader = dict(batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
                        dataset=dict(type='CustomDataset', data_root={data!r}, pipeline=pipeline))
val_dataloader = dict(batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
                      dataset=dict(type='CustomDataset', data_root={data!r}, pipeline=pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1, ))
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
train_cfg = dict(type='mmbignas.SandwichTrainLoop', max_epochs=1, sample_subnet_num=3,
                 sample_strategy=['max', 'min', 'random'])
val_cfg = dict(type='mmbignas.SubnetValLoop', subnets=['max', 'min'], calib_bn=True)
test_cfg = dict(type='mmbignas.EvaluateSubnetLoop', subnets=['max', 'min'], image_size=[32, 32], latency=None)
custom_hooks = [dict(type='mmbignas.BNCalibrationHook', num_images=12)]
randomness = dict(seed=0)
"""


def test_a_classifier(tmp_path: Path) -> None:
    import cv2
    import numpy as np

    generator = np.random.default_rng(0)
    for label in 'abc':
        (tmp_path / 'data' / label).mkdir(parents=True)
        for number in range(4):
            image = generator.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / 'data' / label / f'{number}.png'), image)
    (tmp_path / 'config.py').write_text(CONFIG.format(data=str(tmp_path / 'data')))
    python('tools/train.py', tmp_path / 'config.py', '--work-dir', tmp_path / 'run')
    assert [line['name'] for line in records_of(tmp_path / 'run', 'val')] == ['max_calib', 'min_calib']
    python('tools/test.py', tmp_path / 'config.py', tmp_path / 'run' / 'epoch_1.pth', '--work-dir', tmp_path / 'test')
    names = [line['name'] for line in records_of(tmp_path / 'test', 'test')]
    assert names == ['max', 'max_calib', 'min', 'min_calib']
    output = python('tools/export_subnet.py', tmp_path / 'config.py', tmp_path / 'run' / 'epoch_1.pth', '--subnet',
                    'min', '--out', tmp_path / 'min')
    assert 'equal, bit for bit' in output and 'the folder needs no mmbignas' in output
    code = ("import sys; sys.modules['mmbignas'] = None\n"
            'from mmpretrain import ImageClassificationInferencer as Inferencer\n'
            f"found = Inferencer({str(tmp_path / 'min' / 'config.py')!r}, "
            f"{str(tmp_path / 'min' / 'checkpoint.pth')!r}, device='cpu')({str(tmp_path / 'data' / 'a' / '0.png')!r})\n"
            'print("class", found[0]["pred_label"])')
    assert 'class ' in python('-c', code, cwd=tmp_path, imported=False)
    state = torch.load(tmp_path / 'min' / 'checkpoint.pth')['state_dict']
    assert state['head.fc.weight'].shape == (3, 640)
