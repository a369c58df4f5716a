"""Files of torch.export: torch alone runs them."""
from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS

from mmbignas import ConfigError
from mmbignas.export import export_pt2
from mmbignas.supernet import Supernet
from tests.export.detectors import MEAN, SIZE, STD, cut_out, mmdet_retinanet, supernet_config, trained

ALONE = """
import sys
for package in ('mmbignas', 'mmdet', 'mmcv', 'mmengine'):
    sys.modules[package] = None
import torch
path, data = sys.argv[1:]
facts = {'mmbignas.json': ''}
network = torch.export.load(path, extra_files=facts).module()
batches = torch.load(data)
torch.save(dict(facts=facts, outputs=[network(images) for images in batches]), data)
"""


def run_alone(path: Path, batches: list[torch.Tensor], data: Path) -> dict:
    torch.save(batches, data)
    subprocess.run([sys.executable, '-W', 'ignore', '-c', ALONE, str(path), str(data)], check=True, cwd=path.parent)
    return torch.load(data)


def test_torch_alone_runs_it(tmp_path: Path) -> None:
    config = supernet_config()
    model = trained(MODELS.build(config))
    supernet = Supernet(model)
    subnet = supernet.space.sample(random.Random(0))
    path = tmp_path / 'network.pt2'
    resize = dict(scale=[96, 64], keep_ratio=False)
    check = export_pt2(cut_out(config, model, subnet), path, SIZE, classes=['a', 'b', 'c'], resize=resize)
    names = [f'{name}_{level}' for name in ('cls_score', 'bbox_pred') for level in range(3)]
    assert (check.outputs, check.size, check.batches) == (names, path.stat().st_size, [1, 2])
    assert check.max_abs_diff < 1e-4 < check.max_abs_output

    batches = [torch.randn(count, 3, *SIZE) for count in (1, 2, 5)]
    result = run_alone(path, batches, tmp_path / 'data.pth')
    facts = dict(image_size=list(SIZE), resize=resize, padding='right and bottom, after normalisation',
                 pad_size_divisor=32, pad_value=0, bgr_to_rgb=True, channels='RGB', mean=MEAN, std=STD,
                 classes=['a', 'b', 'c'], outputs=names)
    assert json.loads(result['facts']['mmbignas.json']) == facts
    supernet.apply(subnet)
    for images, outputs in zip(batches, result['outputs'], strict=True):
        with torch.no_grad():
            expected = [level for part in model(images, mode='tensor') for level in part]
        for ours, right in zip(outputs, expected, strict=True):
            torch.testing.assert_close(ours, right, rtol=1e-4, atol=1e-4)
    content = path.read_bytes()
    assert str(Path(__file__).parents[2]).encode() not in content
    assert b'site-packages' not in content


def test_one_image_at_a_time(tmp_path: Path) -> None:
    model = mmdet_retinanet()
    assert export_pt2(model, tmp_path / 'one.pt2', SIZE, dynamic_batch=False).batches == [1]
    images = torch.randn(1, 3, *SIZE)
    [outputs] = run_alone(tmp_path / 'one.pt2', [images], tmp_path / 'data.pth')['outputs']
    with torch.no_grad():
        expected = [level for part in model(images, mode='tensor') for level in part]
    for ours, right in zip(outputs, expected, strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-4, atol=1e-4)


def test_what_is_refused(tmp_path: Path) -> None:
    model = mmdet_retinanet()
    with pytest.raises(ConfigError, match=r'one that ends in \.pt2'):
        export_pt2(model, tmp_path / 'x.onnx', SIZE)
    with pytest.raises(ConfigError, match='multiples of 32'):
        export_pt2(model, tmp_path / 'x.pt2', (60, 96))
    with pytest.raises(ConfigError, match='model must be an ordinary network'):
        export_pt2(MODELS.build(supernet_config()), tmp_path / 'x.pt2', SIZE)
    (tmp_path / 'x.pt2').touch()
    with pytest.raises(ConfigError, match='exists'):
        export_pt2(model, tmp_path / 'x.pt2', SIZE)
