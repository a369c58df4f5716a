"""Decoding and NMS as one graph: MMDetection's own predictions, whatever the network and its test settings."""
from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from mmbignas import ConfigError
from mmbignas.export import DetectionNetwork, Network
from mmbignas.export.detection import nms_keep
from mmbignas.supernet import Supernet
from tests.export.detectors import (
    SIZE,
    check_detections,
    cut_out,
    letterboxed,
    mmdet_config,
    mmdet_retinanet,
    predicted,
    supernet_config,
    trained,
)

NMS = dict(type='nms', iou_threshold=0.5)


@torch.no_grad()
def counts(model: nn.Module, **test_cfg: Any) -> list[int]:
    """Check a detector on random images; return how many detections there were."""
    model.bbox_head.test_cfg.update(test_cfg)
    images, sizes = letterboxed(3)
    boxes, scores, labels, *raw = DetectionNetwork(Network(model, SIZE))(images, sizes)
    most = model.bbox_head.test_cfg.max_per_img
    assert boxes.shape == (3, most, 4)
    assert scores.shape == labels.shape == (3, most)
    assert labels.dtype == torch.int64
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(
        raw, [level for part in model(images, mode='tensor') for level in part], strict=True))
    return check_detections(predicted(model, images, sizes), boxes, scores, labels)


def test_random_subnets_and_settings() -> None:
    config = supernet_config()
    model = trained(MODELS.build(config))
    space, rng, seen = Supernet(model).space, random.Random(0), []
    for subnet in [space.max(), space.min(), *(space.sample(rng) for _ in range(10))]:
        plain = cut_out(config, model, subnet)
        for _ in range(4):
            seen += counts(plain, score_thr=rng.choice([0, 0.05, 0.3, 0.6, 0.9]), nms_pre=rng.choice([3, 60, 1000]),
                           min_bbox_size=rng.choice([-1, 0, 20]), max_per_img=rng.choice([1, 30, 500]),
                           nms=dict(type='nms', iou_threshold=rng.choice([0.1, 0.5, 0.8]),
                                    class_agnostic=rng.random() < 0.3))
    assert max(seen) > 100
    assert sum(0 < count < 20 for count in seen) > 10
    assert counts(plain, score_thr=1.0) == [0, 0, 0]


@pytest.mark.parametrize('settings', [dict(), dict(clip_border=False), dict(add_ctr_clamp=True, ctr_clamp=8)])
def test_mmdetections_retinanet(settings: dict[str, Any]) -> None:
    coder = dict(type='DeltaXYWHBBoxCoder', target_means=[.1, 0., 0., .1], target_stds=[.1, .2, .2, .1], **settings)
    model = mmdet_retinanet(bbox_coder=coder)
    assert min(counts(model)) > 10
    assert min(counts(model, nms=dict(NMS, split_thr=5))) > 10


def overlapping(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Boxes, many of which overlap, and their scores, a third of which are 0."""
    corner = 50 * torch.rand(2, count, 2, generator=generator)
    boxes = torch.cat([corner, corner + 30 * torch.rand(2, count, 2, generator=generator)], -1)
    scores = torch.rand(2, count, generator=generator)
    return boxes, scores * (torch.rand(2, count, generator=generator) > 1 / 3)


def greedy(boxes: list[list[float]], scores: list[float], threshold: float, most: int) -> list[bool]:
    """NMS, box by box."""
    kept: list[int] = []
    for index in sorted((index for index, score in enumerate(scores) if score > 0), key=lambda index: -scores[index]):
        x1, y1, x2, y2 = boxes[index]
        for other in kept:
            a1, b1, a2, b2 = boxes[other]
            shared = max(0., min(x2, a2) - max(x1, a1)) * max(0., min(y2, b2) - max(y1, b1))
            if shared > threshold * ((x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - shared):
                break
        else:
            kept.append(index)
    return [index in kept[:most] for index in range(len(scores))]


def test_nms_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    for count in (1, 2, 10, 40):
        for threshold in (0.1, 0.5, 0.9):
            for most in (1, 5, 100):
                boxes, scores = overlapping(count, generator)
                keep = nms_keep(boxes, scores, threshold, most)
                assert keep.tolist() == [greedy(*of_image, threshold, most)
                                         for of_image in zip(boxes.tolist(), scores.tolist())]


def test_nms_in_onnx() -> None:
    """The translation is the same operation, also where an image has no box at all."""
    runtime = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    from mmbignas.export.detection import ONNX_TRANSLATIONS
    from mmbignas.export.onnx import export

    class Alone(nn.Module):
        def forward(self, boxes: Tensor, scores: Tensor) -> Tensor:
            return nms_keep(boxes, scores, 0.4, 7)

    generator = torch.Generator().manual_seed(0)
    sizes = {0: torch.export.Dim('batch')}
    session = runtime.InferenceSession(export(
        Alone(), overlapping(30, generator), input_names=['boxes', 'scores'], dynamic_shapes=(sizes, sizes),
        custom_translation_table=ONNX_TRANSLATIONS))
    for case in range(40):
        boxes, scores = overlapping(30, generator)
        scores[0] *= case > 0
        scores[1] *= case > 1
        if case % 2:
            boxes, scores = boxes[:1], scores[:1]
        [keep] = session.run(None, dict(boxes=boxes.numpy(), scores=scores.numpy()))
        assert keep.tolist() == nms_keep(boxes, scores, 0.4, 7).tolist()
        assert keep.any() == bool(scores.any())


@pytest.mark.parametrize(('test_cfg', 'message'), [
    (dict(nms=dict(type='soft_nms', iou_threshold=0.5)), "test_cfg.nms must be dict.type='nms'.*, got .*soft_nms"),
    (dict(nms=None), r'test_cfg.nms must be .*, got \{\}'),
    (dict(nms=dict(NMS, max_num=5)), 'test_cfg.nms must be .*, got .*max_num'),
    (dict(nms_pre=-1), 'test_cfg.nms_pre must be an integer >= 1, got -1'),
    (dict(max_per_img=0), 'test_cfg.max_per_img must be an integer >= 1, got 0'),
    (dict(score_thr=-0.1), 'test_cfg.score_thr must be a number from 0 to 1, got -0.1'),
])
def test_settings_that_are_refused(test_cfg: dict[str, Any], message: str) -> None:
    model = mmdet_retinanet()
    model.bbox_head.test_cfg.update(test_cfg)
    with pytest.raises(ConfigError, match=message):
        DetectionNetwork(Network(model, SIZE))


def test_heads_that_are_refused() -> None:
    softmax = mmdet_retinanet(loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False))
    with pytest.raises(ConfigError, match='bbox_head.loss_cls must be .*use_sigmoid=True, .*, got .CrossEntropyLoss'):
        DetectionNetwork(Network(softmax, SIZE))
    atss = MODELS.build(mmdet_config('ATSSHead', norm_cfg=None))  # its scores have a factor
    fcos = MODELS.build(dict(
        type='FCOS', backbone=dict(type='ResNet', depth=18), neck=dict(type='FPN', in_channels=[64, 128, 256, 512],
                                                                       out_channels=8, num_outs=5),
        bbox_head=dict(type='FCOSHead', num_classes=2, in_channels=8, feat_channels=8, norm_cfg=None), test_cfg=None))
    for model in (atss, fcos):
        with pytest.raises(ConfigError, match='model must be a single-stage detector'):
            DetectionNetwork(Network(model, SIZE))
