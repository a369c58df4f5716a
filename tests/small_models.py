"""Small supernets and batches that tests share: the shape of the R18 RetinaNet, a few channels wide."""
from __future__ import annotations

import copy
from typing import Any

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import nn

NUM_CLASSES = 3


def element(low: list, high: list, stride: Any, strategy: Any = 'stage_wise') -> dict[str, Any]:
    """An element of a search space as it stands in a config."""
    return dict(space=dict(min=low, max=high, stride=stride), sample_strategy=strategy)


def big_resnet(**kwargs: Any) -> dict[str, Any]:
    """A backbone: deep stem, widths by stage, depth, kernels of 3 to 5 in two stages."""
    return {
        **dict(
            type='mmbignas.BigResNet',
            out_channel=element([8, 8, 16, 16, 24], [16, 24, 32, 32, 40], [8, 8, 8, 16, 16]),
            depth=element([1, 1, 1, 1, 1], [1, 2, 2, 3, 1], 1, 'stage_wise_depth'),
            kernel_size=element([3, 3, 3, 3, 3], [5, 3, 5, 3, 3], 2),
            expand_ratio=[0.5, 1, 1, 1, 1],
            deep_stem=True,
            out_indices=(1, 2, 3)),
        **kwargs
    }


def big_fpn(**kwargs: Any) -> dict[str, Any]:
    """A neck of five levels for :func:`big_resnet`."""
    return {
        **dict(
            type='mmbignas.BigFPN', in_channels=[32, 32, 40], num_outs=5, norm_cfg=dict(type='BN'),
            out_channel=element([8, 8], [24, 24], 8, 'net_wise')),
        **kwargs
    }


def tower(**kwargs: Any) -> dict[str, Any]:
    """One of the towers of the head."""
    return {**dict(depth=element([1], [3], 1), out_channel=element([8], [24], 8), kernel_size=[3]), **kwargs}


def big_retina_head(**kwargs: Any) -> dict[str, Any]:
    """A head for :func:`big_fpn`: two anchors per location, quality focal loss, GIoU."""
    return {
        **dict(
            type='mmbignas.BigRetinaHead', num_classes=NUM_CLASSES, in_channels=24, norm_cfg=dict(type='BN'),
            cls_tower=tower(), reg_decoded_bbox=True,
            anchor_generator=dict(type='AnchorGenerator', ratios=[1.0], scales=[6, 8], strides=[8, 16, 32, 64, 128]),
            loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
            loss_bbox=dict(type='GIoULoss', loss_weight=1.0)),
        **kwargs
    }


TRAIN_CFG = dict(assigner=dict(type='ATSSAssigner', topk=18), allowed_border=-1, pos_weight=-1, debug=False)
TEST_CFG = dict(nms_pre=1000, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)


def retinanet(backbone: dict | None = None, neck: dict | None = None, head: dict | None = None) -> ConfigDict:
    """The model config of a RetinaNet supernet; each argument is the whole config of that part."""
    return ConfigDict(
        type='RetinaNet', data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32),
        backbone=backbone or big_resnet(), neck=neck or big_fpn(), bbox_head=head or big_retina_head(),
        train_cfg=copy.deepcopy(TRAIN_CFG), test_cfg=copy.deepcopy(TEST_CFG))


def build(config: dict[str, Any]) -> nn.Module:
    """Build from a config, with the weights that training starts from."""
    model = MODELS.build(copy.deepcopy(config))
    model.init_weights()
    return model


def scramble(model: nn.Module) -> nn.Module:
    """Give every parameter and statistic a value of its own, so that no mix-up stays hidden."""
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if 'running_var' in name:
                value.uniform_(0.5, 1.5)
            elif value.dim() == 1:
                value.uniform_(-0.5, 1.5)
            elif '.transforms.' in name:
                value.add_(0.1 * torch.randn_like(value))
            elif value.is_floating_point():
                value.normal_(std=(2 / value[0].numel())**0.5)
    return model


def samples(boxes: list[list[list[float]]], labels: list[list[int]] | None = None,
            size: tuple[int, int] = (64, 64)) -> list[DetDataSample]:
    """Ground truth: for each image its boxes ``[x1, y1, x2, y2]``, and labels (default: 0, 1, ...)."""
    result = []
    for index, of_image in enumerate(boxes):
        classes = labels[index] if labels else [number % NUM_CLASSES for number in range(len(of_image))]
        sample = DetDataSample(metainfo=dict(
            img_id=index, img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size,
            scale_factor=(1.0, 1.0)))
        sample.gt_instances = InstanceData(bboxes=torch.tensor(of_image, dtype=torch.float32).view(-1, 4),
                                           labels=torch.tensor(classes, dtype=torch.long))
        result.append(sample)
    return result


def batch(size: tuple[int, int] = (64, 64)) -> dict[str, Any]:
    """Two images of noise with three boxes, as ``train_step`` and ``val_step`` take them."""
    boxes = [[[4., 6., 40., 50.], [20., 8., 62., 60.]], [[10., 10., 54., 44.]]]
    inputs = [torch.randint(0, 255, (3, *size), dtype=torch.uint8) for _ in boxes]
    return dict(inputs=inputs, data_samples=samples(boxes, size=size))
