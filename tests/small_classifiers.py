"""Small classifier supernets and batches that tests share, a few channels wide."""
from __future__ import annotations

from typing import Any

import torch
from mmengine.config import ConfigDict

from tests.small_models import big_resnet, element

NUM_CLASSES = 5


def one_of(*stages: list, strategy: str = 'stage_wise') -> dict[str, Any]:
    """An element of a search space by its choices in each stage."""
    return dict(space=dict(dynamic_range=list(stages)), sample_strategy=strategy)


def big_regnet(**kwargs: Any) -> dict[str, Any]:
    """A RegNet with squeeze-and-excitation: widths, depth, group widths by stage; kernels, expand ratios by block."""
    return {
        **dict(
            type='mmbignas.BigRegNet',
            out_channel=element([8, 16, 16, 32, 32], [16, 32, 32, 48, 64], [8, 16, 16, 16, 32]),
            depth=element([1] * 5, [1, 2, 1, 2, 1], 1),
            group_width=one_of([8], [4, 8], [2, 8], [8], [1, 4, 8]),
            kernel_size=element([3] * 5, [3, 5, 3, 7, 5], 2, 'block_wise'),
            expand_ratio=element([1, .5, .5, .5, .5], [1, 2, 1, 1.5, 2], .5, 'block_wise'),
            se_ratio=0.25),
        **kwargs
    }


def big_mobilenet(**kwargs: Any) -> dict[str, Any]:
    """A mobile network whose first stage is wider than, as wide as, or narrower than its stem."""
    return {
        **dict(
            type='mmbignas.BigMobileNet',
            out_channel=element([8, 8, 8, 16, 16, 24, 24, 32], [24, 24, 16, 24, 32, 32, 40, 40], 8),
            depth=element([1] * 8, [1, 2, 1, 1, 2, 1, 2, 1], 1),
            kernel_size=element([3] * 8, [5, 5, 7, 3, 5, 7, 5, 3], 2, 'block_wise'),
            expand_ratio=one_of([1], [1], [2, 3, 4], [1.5, 3], [2, 4], [2], [2, 3], [3], strategy='block_wise'),
            final_expand_ratio=2),
        **kwargs
    }


def big_resnet18(**kwargs: Any) -> dict[str, Any]:
    """The ResNet of :func:`~tests.small_models.big_resnet`, with its last feature only."""
    return big_resnet(**{**dict(out_indices=(3,)), **kwargs})


def width_up_to(width: int) -> dict[str, Any]:
    """The ``in_channels`` of a head behind a backbone of changing width."""
    return dict(space=dict(min=[8], max=[width]))


def cls_head(in_channels: Any, **kwargs: Any) -> dict[str, Any]:
    """A head without hidden layers."""
    return {**dict(type='mmbignas.BigLinearClsHead', num_classes=NUM_CLASSES, in_channels=in_channels), **kwargs}


def hidden_layers(**kwargs: Any) -> dict[str, Any]:
    """Hidden layers of a head."""
    return {**dict(depth=element([1], [2], 1), out_channel=element([16], [32], 8, 'block_wise')), **kwargs}


def classifier(backbone: dict[str, Any], head: dict[str, Any]) -> ConfigDict:
    """The model config of a classifier supernet of MMPretrain."""
    return ConfigDict(
        type='mmpretrain.ImageClassifier',
        data_preprocessor=dict(type='mmpretrain.ClsDataPreprocessor', mean=[120.] * 3, std=[60.] * 3),
        backbone=backbone, neck=dict(type='mmpretrain.GlobalAveragePooling'), head=head)


def regnet_classifier(backbone: dict[str, Any] | None = None) -> ConfigDict:
    """:func:`big_regnet` and a head without hidden layers."""
    return classifier(backbone or big_regnet(), cls_head(width_up_to(64)))


def mobile_classifier(backbone: dict[str, Any] | None = None) -> ConfigDict:
    """:func:`big_mobilenet` and a head with hidden layers."""
    return classifier(backbone or big_mobilenet(), cls_head(width_up_to(80), hidden=hidden_layers()))


def resnet_classifier(backbone: dict[str, Any] | None = None) -> ConfigDict:
    """:func:`big_resnet18` and a head without hidden layers."""
    return classifier(backbone or big_resnet18(), cls_head(width_up_to(40)))


def labelled(labels: list[int]) -> list[Any]:
    """Data samples of images with these labels."""
    from mmpretrain.structures import DataSample
    return [DataSample().set_gt_label(label) for label in labels]


def batch(labels: list[int], size: tuple[int, int] = (64, 64)) -> dict[str, Any]:
    """Images of noise with these labels, as ``train_step`` and ``val_step`` take them."""
    return dict(inputs=[torch.randint(0, 256, (3, *size), dtype=torch.uint8) for _ in labels],
                data_samples=labelled(labels))
