"""Small networks for the tests of `mmbignas.elastic`, and stock ones with few channels."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

RATIOS = [0.25, 0.5, 0.75, 1.0]


class Toy(BaseModule):
    """Any network as a model with modes ``tensor`` and ``loss``."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = 'tensor') -> Any:
        output = self.net(inputs)
        return dict(loss=output.square().mean()) if mode == 'loss' else output


def images(size: int = 8, channels: int = 3) -> Callable[[nn.Module], dict[str, Any]]:
    """An `example` for a toy."""
    return lambda model: dict(inputs=torch.randn(2, channels, size, size), data_samples=None)


def retinanet(**options: Any) -> dict[str, Any]:
    """A stock RetinaNet R18 with an eighth of its channels."""
    return dict(
        type='mmdet.RetinaNet', data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32),
        backbone=dict(type='ResNet', depth=18, base_channels=8, num_stages=4, out_indices=(1, 2, 3), norm_eval=False,
                      frozen_stages=-1, norm_cfg=dict(type='BN', requires_grad=True)),
        neck=dict(type='FPN', in_channels=[16, 32, 64], out_channels=16, num_outs=4),
        bbox_head=dict(
            type='RetinaHead', num_classes=3, in_channels=16, feat_channels=16, stacked_convs=2,
            anchor_generator=dict(type='AnchorGenerator', octave_base_scale=4, scales_per_octave=2, ratios=[1.0],
                                  strides=[8, 16, 32, 64]),
            bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
            loss_cls=dict(type='FocalLoss', use_sigmoid=True), loss_bbox=dict(type='L1Loss')),
        train_cfg=dict(assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0),
                       sampler=dict(type='PseudoSampler'), allowed_border=-1, pos_weight=-1, debug=False),
        test_cfg=dict(nms_pre=100, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=10), **options)


def faster_rcnn() -> dict[str, Any]:
    """A stock Faster R-CNN R18 with an eighth of its channels."""
    backbone, neck = retinanet()['backbone'], retinanet()['neck']
    coder = dict(type='DeltaXYWHBBoxCoder')
    assigner = dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.3)
    sampler = dict(type='RandomSampler', num=16, pos_fraction=0.5)
    train = dict(assigner=assigner, sampler=sampler, pos_weight=-1, debug=False)
    nms = dict(nms_pre=50, max_per_img=20, nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0)
    return dict(
        type='mmdet.FasterRCNN', data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32),
        backbone=backbone, neck=neck,
        rpn_head=dict(
            type='RPNHead', in_channels=16, feat_channels=16, bbox_coder=coder,
            anchor_generator=dict(type='AnchorGenerator', scales=[8], ratios=[0.5, 1.0, 2.0],
                                  strides=[8, 16, 32, 64]),
            loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True), loss_bbox=dict(type='L1Loss')),
        roi_head=dict(
            type='StandardRoIHead',
            bbox_roi_extractor=dict(type='SingleRoIExtractor', roi_layer=dict(type='RoIAlign', output_size=3),
                                    out_channels=16, featmap_strides=[8, 16, 32]),
            bbox_head=dict(type='Shared2FCBBoxHead', in_channels=16, fc_out_channels=24, roi_feat_size=3, num_classes=3,
                           bbox_coder=coder, loss_cls=dict(type='CrossEntropyLoss'), loss_bbox=dict(type='L1Loss'))),
        train_cfg=dict(rpn=dict(train, allowed_border=-1), rpn_proposal=nms,
                       rcnn=dict(train, sampler=dict(sampler, add_gt_as_proposals=True))),
        test_cfg=dict(rpn=nms, rcnn=dict(score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=10)))


def mask_rcnn() -> dict[str, Any]:
    """The same with masks, whose head has batch normalisations, as the shared convolutions of the box head have."""
    config = faster_rcnn()
    head, norm = config['roi_head'], dict(norm_cfg=dict(type='BN'))
    head['bbox_head'].update(type='Shared4Conv1FCBBoxHead', conv_out_channels=16, **norm)
    head.update(
        mask_roi_extractor=dict(head['bbox_roi_extractor'], roi_layer=dict(type='RoIAlign', output_size=4)),
        mask_head=dict(type='FCNMaskHead', num_convs=1, in_channels=16, conv_out_channels=8, num_classes=3, **norm,
                       loss_mask=dict(type='CrossEntropyLoss', use_mask=True)))
    config['train_cfg']['rcnn']['mask_size'] = 8
    config['test_cfg']['rcnn']['mask_thr_binary'] = 0.5
    return dict(config, type='mmdet.MaskRCNN')


def cascade_rcnn() -> dict[str, Any]:
    """The same with two stages after the proposals."""
    config = faster_rcnn()
    head = config['roi_head']
    head.update(type='CascadeRoIHead', num_stages=2, stage_loss_weights=[1, 0.5],
                bbox_head=[dict(head['bbox_head'], reg_class_agnostic=True) for _ in range(2)])
    config['train_cfg']['rcnn'] = [config['train_cfg']['rcnn']] * 2
    return dict(config, type='mmdet.CascadeRCNN')


def classifier(backbone: dict[str, Any], channels: int, **options: Any) -> dict[str, Any]:
    """A stock image classifier."""
    return dict(
        type='mmpretrain.ImageClassifier', data_preprocessor=dict(type='mmpretrain.ClsDataPreprocessor', num_classes=5),
        backbone=backbone, neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(type='mmpretrain.LinearClsHead', num_classes=5, in_channels=channels,
                  loss=dict(type='mmpretrain.CrossEntropyLoss')), **options)


def densenet() -> dict[str, Any]:
    """A DenseNet, whose normalisations lie across pieces of concatenations."""
    return classifier(dict(type='mmpretrain.DenseNet', arch=dict(growth_rate=8, depths=[2, 3], init_channels=16)), 40)


def mobilenet() -> dict[str, Any]:
    """A MobileNetV2 of a quarter of its width."""
    return classifier(dict(type='mmpretrain.MobileNetV2', widen_factor=0.25), 1280)


def elastic(config: dict[str, Any], **options: Any) -> dict[str, Any]:
    """The config of the supernet of a stock network."""
    config = dict(config)
    of = config.pop('type')
    settings: dict[str, Any] = dict(width=dict(ratios=RATIOS, divisor=2), depth='residual')
    return dict(config, type='mmbignas.Elastic', of=of, **{**settings, **options})


def scrambled(model: nn.Module) -> nn.Module:
    """The model with random normalisation weights and statistics, so that nothing is hidden by ones and zeros."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.dim() == 1 and tensor.is_floating_point():
                noise = torch.rand(tensor.shape, generator=generator)
                tensor.copy_(noise + 0.5 if 'var' in name or 'weight' in name else noise - 0.5)
    return model


def build(config: dict[str, Any]) -> nn.Module:
    """Build a model, with random normalisations."""
    torch.manual_seed(0)
    return scrambled(MODELS.build(config))
