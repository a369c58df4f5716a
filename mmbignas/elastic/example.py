"""A batch for a network to be traced with."""
from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmbignas.errors import ConfigError
from mmbignas.utils.rules import in_one_line, shown

DETECTOR_SIZES, CLASSIFIER_SIZES = (128, 320), (64, 224, 299, 32)  # the first that works
BATCH = 2  # statistics of a batch need two values where a feature has one pixel
HOW = ("a size in pixels, [height, width], or 'package.module.function', a function that takes the model and returns "
       'dict(inputs=..., data_samples=...) as the data preprocessor would')


def example_batches(model: nn.Module, example: Any = None) -> Iterator[dict[str, Any]]:
    """Batches that a model's ``forward`` may take: noise, with a few objects in it.

    Args:
        model: a detector of MMDetection or a classifier of MMPretrain; any other needs ``example``.
        example: see :data:`HOW`; ``None`` for a few sizes, small ones first.

    Returns:
        Iterator: ``inputs`` and ``data_samples`` of each.

    Raises:
        ConfigError: for another ``example``, or a model that a batch cannot be made for.
    """
    if isinstance(example, str) or callable(example):
        yield _from_function(_function(example) if isinstance(example, str) else example, model)
        return
    size = _read_size(example)
    names = {base.__module__.split('.')[0] for base in type(model).__mro__}
    if 'mmdet' in names and hasattr(model, 'data_preprocessor'):
        for each in [size] if size else [(pixels, pixels) for pixels in DETECTOR_SIZES]:
            for masks in (False, True):  # some heads refuse masks that they do not expect
                yield detection_batch(model, each, masks)
    elif 'mmpretrain' in names and hasattr(model, 'data_preprocessor'):
        for each in [size] if size else _own_size(model) or [(pixels, pixels) for pixels in CLASSIFIER_SIZES]:
            yield classification_batch(model, each)
    else:
        raise ConfigError(f'example must be given for a {type(model).__name__}, which is neither a detector of '
                          f'MMDetection nor a classifier of MMPretrain; allowed: {HOW}')


def _read_size(example: Any) -> tuple[int, int] | None:
    sizes = [example] * 2 if isinstance(example, Integral) else example
    if sizes is None:
        return None
    if not isinstance(sizes, Sequence) or len(sizes) != 2 or any(
            isinstance(pixels, bool) or not isinstance(pixels, Integral) or pixels < 1 for pixels in sizes):
        raise ConfigError(f'example must be {HOW}, got {shown(example)}')
    return int(sizes[0]), int(sizes[1])


def _function(path: str) -> Callable[..., Any]:
    module, _, name = path.rpartition('.')
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f'example must be {HOW}, got {shown(path)} ({in_one_line(error)})') from None


def _from_function(function: Callable[..., Any], model: nn.Module) -> dict[str, Any]:
    batch = function(model)
    if not isinstance(batch, Mapping) or 'inputs' not in batch:
        raise ConfigError(f'example must return dict(inputs=..., data_samples=...), got {type(batch).__name__}')
    return dict(batch)


def _own_size(model: nn.Module) -> list[tuple[int, int]]:
    """The size that a classifier is built for, where it says so."""
    for module in model.modules():
        for name in ('img_size', 'input_size', 'init_input_size'):
            size = getattr(module, name, None)
            if isinstance(size, int) and not isinstance(size, bool) and size > 0:
                return [(size, size)]
            if isinstance(size, (tuple, list)) and len(size) == 2:
                return [(int(size[0]), int(size[1]))]
    return []


def _images(model: nn.Module, size: tuple[int, int]) -> Tensor:
    """Noise with as many channels as the data preprocessor has means for, or three."""
    mean = getattr(model.data_preprocessor, 'mean', None)
    return torch.randn(BATCH, mean.numel() if isinstance(mean, Tensor) else 3, *size)


def classification_batch(model: nn.Module, size: tuple[int, int]) -> dict[str, Any]:
    """Images and labels.

    Args:
        model: a classifier.
        size: height and width in pixels.
    """
    from mmpretrain.structures import DataSample

    return dict(inputs=_images(model, size), data_samples=[DataSample().set_gt_label(0) for _ in range(BATCH)])


def detection_batch(model: nn.Module, size: tuple[int, int], with_masks: bool) -> dict[str, Any]:
    """Images with three objects each: boxes and labels.

    Args:
        model: a detector.
        size: height and width in pixels.
        with_masks: whether there are masks of the objects and of the whole image too.
    """
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData, PixelData

    height, width = size
    samples = []
    for number in range(BATCH):
        sample = DetDataSample(metainfo=dict(
            img_id=number, img_path='example.jpg', img_shape=size, ori_shape=size, pad_shape=size,
            batch_input_shape=size, scale_factor=(1.0, 1.0), flip=False, flip_direction=None))
        shares = torch.tensor([[.1, .1, .4, .5], [.3, .4, .9, .9], [.5, .05, .8, .3]]) + 0.03 * number
        boxes = shares * torch.tensor([width, height, width, height])
        masks = np.zeros((len(boxes), height, width), dtype=np.uint8)
        for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist()):
            mask[top:bottom, left:right] = 1
        labels = torch.zeros(len(boxes), dtype=torch.long)
        sample.gt_instances = InstanceData(bboxes=boxes, labels=labels)
        sample.proposals = InstanceData(bboxes=boxes.clone(), scores=torch.ones(len(boxes)))
        if with_masks:
            sample.gt_instances.masks = BitmapMasks(masks, height, width)
            sample.gt_sem_seg = PixelData(sem_seg=torch.zeros(1, height, width, dtype=torch.long))
        samples.append(sample)
    return dict(inputs=_images(model, size), data_samples=samples)
