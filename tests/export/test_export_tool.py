"""tools/export_onnx.py: from a config and a checkpoint to a file, or one line that says why not."""
from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

from tests.export.detectors import SIZE, mmdet_config, supernet_config, trained

TOOL = Path(__file__).parents[2] / 'tools' / 'export_onnx.py'


def write(folder: Path, name: str, model_config: Any, classes: tuple[str, ...]) -> None:
    """A config file and a checkpoint."""
    pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(96, 64), keep_ratio=True)]
    Config(dict(default_scope='mmdet', custom_imports=dict(imports=['mmbignas']), model=model_config,
                test_dataloader=dict(dataset=dict(pipeline=pipeline)))).dump(str(folder / f'{name}.py'))
    torch.save(dict(state_dict=trained(MODELS.build(model_config)).state_dict(),
                    meta=dict(dataset_meta=dict(classes=classes))), folder / f'{name}.pth')


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('tool')
    write(path, 'plain', mmdet_config(), ('cat', 'dog', 'cow', 'hen'))
    write(path, 'super', supernet_config(), ('a', 'b', 'c'))
    (path / 'there.onnx').touch()
    return path


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, command: str) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *command.split()])
    monkeypatch.setenv('LOCAL_RANK', '0')
    runpy.run_path(str(TOOL), run_name='__main__')


def test_boxes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, folder: Path) -> None:
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    run(monkeypatch, folder, 'plain.py plain.pth --out there.onnx --overwrite --image-size 64 96 --boxes '
        '--static-batch --opset 19 --cfg-options model.test_cfg.max_per_img=7')
    proto = onnx.load(str(folder / 'there.onnx'))
    facts = {item.key: json.loads(item.value) for item in proto.metadata_props}
    assert facts['classes'] == ['cat', 'dog', 'cow', 'hen']
    assert facts['image_size'] == list(SIZE)
    assert facts['resize'] == dict(scale=[96, 64], keep_ratio=True, interpolation='bilinear', backend='cv2')
    assert [[dim.dim_value for dim in output.type.tensor_type.shape.dim] for output in proto.graph.output] == [
        [1, 7, 4], [1, 7], [1, 7]]
    assert proto.opset_import[0].version == 19
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith('there.onnx: ')
    assert ' MB, ' in lines[0]
    assert lines[1] == 'outputs: boxes, scores, labels'
    assert lines[3].startswith('boxes, on the same images without and with padding: 14, and 14 by MMDetection')
    assert len(lines) == 4


def test_pt2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, folder: Path) -> None:
    run(monkeypatch, folder, 'plain.py plain.pth --out x.pt2')  # the pipeline tells the size
    files = {'mmbignas.json': ''}
    outputs = torch.export.load(folder / 'x.pt2', extra_files=files).module()(torch.randn(3, 3, *SIZE))
    facts = json.loads(files['mmbignas.json'])
    assert facts['classes'] == ['cat', 'dog', 'cow', 'hen']
    assert len(outputs) == len(facts['outputs']) == 6
    assert 'raw outputs, on batches of 1 and 2 random images' in capsys.readouterr().out


@pytest.mark.parametrize(('command', 'message'), [
    ('plain.py plain.pth --out x.pth --image-size 64 96', 'must be one that ends in .onnx or .pt2'),
    ('plain.py plain.pth --out boxes.pt2 --image-size 64 96 --boxes', 'torch has no NMS'),
    ('plain.py plain.pth --out there.onnx --image-size 64 96', 'there.onnx: exists'),
    ('plain.py plain.pth --out new.onnx --image-size 64 99', '--image-size must be height and width'),
    ('plain.py plain.pth --out new.onnx --image-size 64 96 --opset 11', '--opset must be an integer from 18 to'),
    ('plain.py plain.pth --out new.onnx --cfg-options test_dataloader.dataset.pipeline=[]',
     '--image-size H W is missing, and plain.py does not tell the size of its images'),
    ('missing.py plain.pth --out new.onnx --image-size 64 96', 'config file not found: missing.py'),
    ('plain.py missing.pth --out new.onnx --image-size 64 96', 'checkpoint not found: missing.pth'),
    ('plain.py super.pth --out new.onnx --image-size 64 96', 'super.pth: is of another architecture'),
    ('super.py super.pth --out new.onnx --image-size 64 96', 'python tools/export_subnet.py'),
])
def test_errors_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, folder: Path,
                             command: str, message: str) -> None:
    files = sorted(folder.iterdir())
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, folder, command)
    assert stop.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith('error: ')
    assert message in line
    assert sorted(folder.iterdir()) == files
