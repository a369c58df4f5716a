"""Small ordinary detectors to export, with weights of which some detections come."""
from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from torch import Tensor, nn

from mmbignas.space import Subnet
from mmbignas.supernet import subnet_config, subnet_state_dict
from tests.small_models import big_fpn, big_retina_head, retinanet, scramble

SIZE = (64, 96)
MEAN, STD = [120., 110., 100.], [60., 50., 40.]
STRIDES = [8, 16, 32]


def supernet_config(**test_cfg: Any) -> ConfigDict:
    """A RetinaNet supernet of three levels, whose test settings matter for small images too."""
    anchors = dict(type='AnchorGenerator', ratios=[1.0], scales=[3, 5], strides=STRIDES)
    config = retinanet(neck=big_fpn(num_outs=3), head=big_retina_head(anchor_generator=anchors))
    config.data_preprocessor.update(mean=MEAN, std=STD, bgr_to_rgb=True)
    config.test_cfg.update(dict(nms_pre=60, max_per_img=30, score_thr=0.3, **test_cfg))
    return config


@torch.no_grad()
def trained(model: nn.Module) -> nn.Module:
    """Give weights of which different scores come, and boxes of sensible sizes."""
    scramble(model).eval()
    for layer, outputs in zip((model.bbox_head.retina_cls, model.bbox_head.retina_reg),
                              model(torch.randn(2, 3, *SIZE), mode='tensor')):
        values = torch.cat([level.flatten() for level in outputs])
        layer.weight /= values.std()
        layer.bias.uniform_(-0.5, 0.5)
    return model


def cut_out(config: ConfigDict, supernet: nn.Module, subnet: Subnet) -> nn.Module:
    """A subnet as an ordinary network."""
    plain = MODELS.build(subnet_config(config, supernet, subnet))
    plain.load_state_dict(subnet_state_dict(supernet, plain))
    return plain.eval()


def mmdet_config(head_type: str = 'RetinaHead', **head: Any) -> ConfigDict:
    """MMDetection's own RetinaNet, with a ResNet18 of a quarter of the width."""
    backbone = dict(type='ResNet', depth=18, base_channels=16, stem_channels=16, out_indices=(1, 2, 3))
    neck = dict(type='FPN', in_channels=[32, 64, 128], out_channels=16, num_outs=3)
    anchors = dict(type='AnchorGenerator', ratios=[0.5, 1.0, 2.0], scales=[4], strides=STRIDES)
    coder = dict(type='DeltaXYWHBBoxCoder', target_stds=[.1, .1, .2, .2])
    return ConfigDict(
        type='RetinaNet', data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32),
        backbone=backbone, neck=neck,
        bbox_head={**dict(type=head_type, num_classes=4, in_channels=16, stacked_convs=1, feat_channels=16,
                          anchor_generator=anchors, bbox_coder=coder), **head},
        test_cfg=dict(nms_pre=100, min_bbox_size=4, score_thr=0.4, nms=dict(type='nms', iou_threshold=0.4),
                      max_per_img=50))


def mmdet_retinanet(**head: Any) -> nn.Module:
    """The same, with weights."""
    return trained(MODELS.build(mmdet_config(**head)))


@torch.no_grad()
def predicted(model: nn.Module, images: Tensor, sizes: Tensor) -> list[DetDataSample]:
    """What MMDetection predicts for normalised images of these sizes in their padding."""
    samples = [DetDataSample(metainfo=dict(img_shape=tuple(size), ori_shape=tuple(size), scale_factor=(1., 1.),
                                           batch_input_shape=tuple(images.shape[-2:]))) for size in sizes.tolist()]
    return model.predict(images, samples, rescale=False)


def letterboxed(count: int) -> tuple[Tensor, Tensor]:
    """Images of noise, the first of which fills the input and the others do not, and their sizes."""
    sizes = torch.tensor([SIZE, *([int(torch.randint(20, side + 1, ())) for side in SIZE] for _ in range(count - 1))])
    images = torch.zeros(count, 3, *SIZE)
    for image, (height, width) in zip(images, sizes.tolist()):
        image[:, :height, :width] = 2 * torch.randn(3, height, width)
    return images, sizes


def check_detections(expected: list[DetDataSample], boxes: Any, scores: Any, labels: Any) -> list[int]:
    """The same detections in the same order, then nothing but padding; returns how many there are."""
    counts = []
    for sample, ours in zip(expected, zip(boxes, scores, labels), strict=True):
        right, count = sample.pred_instances, len(sample.pred_instances)
        our_boxes, our_scores, our_labels = (np.asarray(values) for values in ours)
        np.testing.assert_array_equal(our_labels[:count], right.labels.numpy())
        np.testing.assert_allclose(our_scores[:count], right.scores.numpy(), atol=1e-5)
        np.testing.assert_allclose(our_boxes[:count], right.bboxes.numpy(), atol=1e-2)
        assert (our_labels[count:] == -1).all()
        assert not our_boxes[count:].any()
        assert not our_scores[count:].any()
        counts.append(count)
    return counts
