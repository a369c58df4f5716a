"""ONNX files: in ONNX Runtime they compute what the network computes, and detect what MMDetection detects."""
from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from mmbignas import ConfigError, DependencyError
from mmbignas.export import export_onnx
from mmbignas.space import Subnet
from mmbignas.supernet import Supernet
from tests.export.detectors import (
    MEAN,
    SIZE,
    STD,
    check_detections,
    cut_out,
    letterboxed,
    mmdet_retinanet,
    predicted,
    supernet_config,
    trained,
)

onnx = pytest.importorskip('onnx')
runtime = pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')

NAMES = [f'{name}_{level}' for name in ('cls_score', 'bbox_pred') for level in range(3)]
ROOT = Path(__file__).parents[2]


def run(path: Path, *inputs: Tensor) -> list[np.ndarray]:
    session = runtime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    expected = [('images', 'tensor(float)'), ('image_sizes', 'tensor(int64)')][:len(inputs)]
    assert [(node.name, node.type) for node in session.get_inputs()] == expected
    return session.run(None, {name: values.numpy() for (name, _), values in zip(expected, inputs)})


@torch.no_grad()
def check_raw(model: nn.Module, path: Path, batches: tuple[int, ...]) -> float:
    """The outputs in an ONNX file are those of the model; returns the greatest difference."""
    worst = 0.
    for count in batches:
        images = torch.randn(count, 3, *SIZE)
        expected = [level.numpy() for part in model(images, mode='tensor') for level in part]
        for ours, right in zip(run(path, images), expected, strict=True):
            assert ours.shape == right.shape
            np.testing.assert_allclose(ours, right, rtol=1e-4, atol=1e-4)
            worst = max(worst, float(abs(ours - right).max()))
    return worst


class Cases:
    """A supernet and some of its subnets."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.config = supernet_config()
        self.model = trained(MODELS.build(self.config))
        self.supernet = Supernet(self.model)
        space, rng = self.supernet.space, random.Random(0)
        self.subnets: dict[str, Subnet] = dict(
            max=space.max(), min=space.min(), random=space.sample(rng), other=space.sample(rng))

    def plain(self, name: str, **test_cfg: Any) -> nn.Module:
        plain = cut_out(self.config, self.model, self.subnets[name])
        plain.bbox_head.test_cfg.update(test_cfg)
        return plain


@pytest.fixture(scope='module')
def cases() -> Cases:
    return Cases()


def test_raw_outputs_are_those_of_the_supernet(tmp_path: Path, cases: Cases) -> None:
    """Of two subnets; those of the others are compared on their way to boxes."""
    names = ['min', 'other']
    for name in names:
        path = tmp_path / f'{name}.onnx'
        plain = cases.plain(name)
        check = export_onnx(plain, path, SIZE, classes=('a', 'b', 'c'), resize=dict(scale=(96, 64), keep_ratio=True))
        cases.supernet.apply(cases.subnets[name])
        assert check_raw(cases.model, path, (1, 2, 5)) < 1e-4
        assert check.max_abs_diff < 1e-4 < check.max_abs_output
        assert (check.path, check.outputs, check.batches, check.boxes) == (str(path), NAMES, [1, 2], None)
        assert check.size == path.stat().st_size
        assert check.params == sum(parameter.numel() for parameter in plain.parameters())
    assert (tmp_path / 'min.onnx').stat().st_size < (tmp_path / 'other.onnx').stat().st_size
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(f'{name}.onnx' for name in names)
    check_file(path)


def check_file(path: Path) -> None:
    """Standard operators, a named batch size, what a deployer has to know, nothing about the machine."""
    proto = onnx.load(str(path))
    onnx.checker.check_model(proto, full_check=True)
    assert {node.domain for node in proto.graph.node} <= {''}
    for value in (*proto.graph.input, *proto.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == 'batch'
    assert [dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim[1:]] == [3, *SIZE]
    assert {item.key: json.loads(item.value) for item in proto.metadata_props} == dict(
        image_size=list(SIZE), resize=dict(scale=[96, 64], keep_ratio=True),
        padding='right and bottom, after normalisation', pad_size_divisor=32, pad_value=0, bgr_to_rgb=True,
        channels='RGB', mean=MEAN, std=STD, classes=['a', 'b', 'c'])
    content = path.read_bytes()
    assert str(ROOT).encode() not in content
    assert b'site-packages' not in content


def test_boxes_are_those_of_mmdetection(tmp_path: Path, cases: Cases) -> None:
    """As many boxes as fit, some, few, and, of an image, none."""
    settings: dict[str, dict[str, Any]] = dict(
        max=dict(score_thr=0.), min=dict(score_thr=0.4, min_bbox_size=12), random=dict(score_thr=0.95))
    counts: dict[str, list[int]] = {}
    for name, test_cfg in settings.items():
        plain = cases.plain(name, **test_cfg)
        path = tmp_path / f'{name}.onnx'
        dynamic = name != 'min'
        check = export_onnx(plain, path, SIZE, boxes=True, dynamic_batch=dynamic)
        assert check.outputs == ['boxes', 'scores', 'labels']
        assert check.max_abs_diff < 1e-4 < check.max_abs_output
        assert check.boxes is not None
        assert check.boxes.found == check.boxes.expected
        assert max(check.boxes.max_box_diff, check.boxes.max_score_diff) < 1e-2
        counts[name] = []
        for count in (1, 2, 4) if dynamic else (1, 1):
            images, sizes = letterboxed(count)
            boxes, scores, labels = run(path, images, sizes)
            assert boxes.shape == (count, 30, 4)
            assert labels.dtype == np.int64
            counts[name] += check_detections(predicted(plain, images, sizes), boxes, scores, labels)
    assert set(counts['max']) == {30}
    assert min(counts['min']) > 5
    assert 0 < sum(counts['random']) < 40
    assert 0 in counts['random']


def test_mmdetections_retinanet_one_image_at_a_time(tmp_path: Path) -> None:
    model = mmdet_retinanet()
    model.train()
    model.backbone.layer1.eval()
    modes = [module.training for module in model.modules()]
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    raw, detector = tmp_path / 'raw.onnx', tmp_path / 'boxes.onnx'
    check = export_onnx(model, raw, SIZE, dynamic_batch=False, opset=18)
    assert check.batches == [1]
    export_onnx(model, detector, SIZE, boxes=True, dynamic_batch=False)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    model.eval()
    assert check_raw(model, raw, (1, 1)) < 1e-4
    for size in (SIZE, (50, 70)):
        inputs = torch.randn(1, 3, *SIZE), torch.tensor([size])
        assert min(check_detections(predicted(model, *inputs), *run(detector, *inputs))) > 10
    proto = onnx.load(str(raw))
    assert proto.opset_import[0].version == 18
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    facts = {item.key: json.loads(item.value) for item in proto.metadata_props}
    assert [facts[key] for key in ('classes', 'resize', 'mean', 'channels')] == [None, None, None, 'BGR']


def test_a_network_that_computes_something_else_is_not_written(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sys.modules['mmbignas.export.onnx']._run  # type: ignore[attr-defined]
    monkeypatch.setattr('mmbignas.export.onnx._run',
                        lambda *args: [output * 1.01 for output in real(*args)])
    path = tmp_path / 'x.onnx'
    path.write_bytes(b'before')
    with pytest.raises(RuntimeError, match='something else than the model: outputs differ by .* at most'):
        export_onnx(mmdet_retinanet(), path, SIZE, dynamic_batch=False, overwrite=True)
    assert path.read_bytes() == b'before'
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('broken', ['threshold', 'sizes'])
def test_other_boxes_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """The raw outputs are right; NMS in ONNX, or the border of the images, is not."""
    from mmbignas.export.detection import ONNX_TRANSLATIONS, _to_onnx
    if broken == 'threshold':
        monkeypatch.setitem(ONNX_TRANSLATIONS, torch.ops.mmbignas.nms_keep.default,
                            lambda boxes, scores, iou_threshold, max_keep: _to_onnx(boxes, scores, 0.05, max_keep))
    else:
        real = torch.minimum
        monkeypatch.setattr('torch.minimum', lambda boxes, limits: real(boxes, limits + 8))
    with pytest.raises(RuntimeError, match=r'other boxes than MMDetection, which finds \d+: \d+ are missing'):
        export_onnx(mmdet_retinanet(), tmp_path / 'x.onnx', SIZE, boxes=True, dynamic_batch=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(('options', 'message'), [
    (dict(path='x.pb'), r'the file must be one that ends in \.onnx, got .*x\.pb'),
    (dict(path='missing/x.onnx'), 'its folder does not exist'),
    (dict(path='there.onnx'), 'there.onnx: exists'),
    (dict(image_size=(64, 100)), r'image_size must be .* multiples of 32 .*pad_size_divisor.*, got \(64, 100\)'),
    (dict(opset=11), 'opset must be an integer from 18 to .*, or None, got 11'),
])
def test_options_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any],
                                  message: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path('there.onnx').touch()
    model = mmdet_retinanet()
    with pytest.raises(ConfigError, match=message):
        export_onnx(model, **{**dict(path='x.onnx', image_size=SIZE), **options})
    assert [path.name for path in tmp_path.iterdir()] == ['there.onnx']


def test_models_that_are_refused(tmp_path: Path, cases: Cases) -> None:
    with pytest.raises(ConfigError, match='model must be an ordinary network, .* with spaces in backbone, '):
        export_onnx(cases.model, tmp_path / 'x.onnx', SIZE)

    class Picky(nn.Conv2d):
        def forward(self, images: Tensor, mode: str, proposals: Any = None) -> Tensor:
            return super().forward(images) + proposals

    with pytest.raises(ConfigError, match='model must be one .* nothing but an image, .*, got .Picky'):
        export_onnx(Picky(3, 1, 1), tmp_path / 'x.onnx', SIZE)


def test_other_models_have_numbered_outputs(tmp_path: Path) -> None:
    class Two(nn.Conv2d):
        def forward(self, images: Tensor, mode: str) -> dict[str, Any]:
            first = super().forward(images)
            return dict(first=first, rest=[first.mean((2, 3))])

    model, path = Two(3, 2, 3), tmp_path / 'two.onnx'
    assert export_onnx(model, path, (10, 7)).outputs == ['output_0', 'output_1']
    images = torch.randn(3, 3, 10, 7)
    expected = model(images, 'tensor')
    for ours, right in zip(run(path, images), (expected['first'], *expected['rest']), strict=True):
        np.testing.assert_allclose(ours, right.detach().numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('package', ['onnx', 'onnxscript', 'onnxruntime'])
def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DependencyError, match=rf'needs {package}, .*pip install "mmbignas\[onnx\]"'):
        export_onnx(mmdet_retinanet(), tmp_path / 'x.onnx', SIZE)
