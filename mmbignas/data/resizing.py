"""Images of another size than that of the data pipeline, for a while or for good."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from mmdet.structures.bbox import BaseBoxes, scale_boxes
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.nn import functional

from mmbignas.data.image_sizes import check_image_size
from mmbignas.errors import ConfigError
from mmbignas.registry import MODELS
from mmbignas.utils.models import unwrapped
from mmbignas.utils.rules import must_be, one_of

# The modes of torch.nn.functional.interpolate that are for images.
INTERPOLATIONS = ('nearest', 'nearest-exact', 'bilinear', 'bicubic', 'area')
INTERPOLATION = one_of(INTERPOLATIONS)
ANTIALIASED = ('bilinear', 'bicubic')
GROUND_TRUTH = ('gt_instances', 'ignored_instances', 'proposals')
MAPS = ('gt_sem_seg', 'gt_panoptic_seg')


@contextmanager
def at_resolution(model: nn.Module, image_size: Sequence[int] | None,
                  interpolation: str = 'bicubic', key: str = 'image_size') -> Iterator[None]:
    """Let a model see images of this size, in training, evaluation and BN calibration.

    Whatever comes out of ``model.data_preprocessor`` is resized as MMDetection's ``Resize(scale=image_size,
    keep_ratio=True)`` resizes: the image, padded to a multiple of ``pad_size_divisor``, is scaled until its longer or
    its shorter side is that of ``image_size``, whichever comes first. Only the image itself is interpolated; it is
    padded again afterwards. So the result does not depend on what else is in the batch, and an image that has the size
    already stays as it is, to the last bit: image sizes that suit a pipeline are its ``Resize`` scale, padded, and
    smaller ones. Images without boxes have to become exactly of that size, from larger ones.

    ``img_shape``, ``pad_shape``, ``batch_input_shape`` and ``scale_factor`` of a detector's samples follow, so boxes
    are predicted at their places in the original image. Boxes and masks of the ground truth are scaled in training
    only: in evaluation they belong to the original image, or to nothing that is looked at.

    ``bilinear`` and ``bicubic`` are antialiased, as in Pillow: sizes are mostly smaller than the pipeline's, and
    interpolation alone would pass over pixels.

    Args:
        model: the model, or a wrapper such as DDP around it.
        image_size: height and width in pixels after padding, multiples of ``pad_size_divisor``; which of them is the
            longer side does not matter to images that lie across. ``None`` for the images as they are.
        interpolation: one of :data:`INTERPOLATIONS`.
        key: what the user calls the image size.

    Raises:
        ConfigError: for an image size or an interpolation that is not allowed or a model without data preprocessor;
            in a forward pass, for a batch that is not one of images, whose ground truth cannot be scaled, or which
            without boxes is smaller or of another ratio.
    """
    if image_size is None:
        yield
        return
    resizer = Resizer(model, image_size, interpolation, key)
    handle = resizer.preprocessor.register_forward_hook(resizer.hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@MODELS.register_module(name='ResizedDataPreprocessor')
def resized_data_preprocessor(preprocessor: Mapping[str, Any], image_size: Sequence[int],
                              interpolation_type: str = 'bicubic', **defaults: Any) -> nn.Module:
    """Build a data preprocessor that gives images of this size; a ``type`` for ``data_preprocessor`` in a config.

    It is how an exported subnet sees the images that it saw as part of the supernet. What is built is the preprocessor
    itself, so all that looks at its attributes, class or state finds what it expects; it has the work of
    :func:`at_resolution` to do besides, wherever it is called.

    Args:
        preprocessor: config of the preprocessor.
        image_size: height and width in pixels, see :func:`at_resolution`.
        interpolation_type: one of :data:`INTERPOLATIONS`.
        **defaults: what a model adds to the config of its preprocessor, as MMPretrain's classifiers do.

    Raises:
        ConfigError: for a preprocessor without a type, or an image size or an interpolation that is not allowed.
    """
    if not isinstance(preprocessor, Mapping) or 'type' not in preprocessor:
        raise must_be('data_preprocessor.preprocessor', 'the config of a data preprocessor, a dict with type',
                      preprocessor)
    owner = nn.Module()  # all that a resizer has to know of a model
    owner.data_preprocessor = MMENGINE_MODELS.build({**defaults, **preprocessor})
    resizer = Resizer(owner, image_size, interpolation_type)
    resizer.preprocessor.register_forward_hook(resizer.hook, with_kwargs=True)
    return resizer.preprocessor


class Resizer:
    """Resizes preprocessed batches, as :func:`at_resolution` describes it.

    Args:
        model, image_size, interpolation, key: see :func:`at_resolution`.

    Raises:
        ConfigError: as there.
    """

    def __init__(self, model: nn.Module, image_size: Sequence[int], interpolation: str = 'bicubic',
                 key: str = 'image_size') -> None:
        inner = unwrapped(model)
        preprocessor = getattr(inner, 'data_preprocessor', None)
        if not isinstance(preprocessor, nn.Module):
            raise must_be(key, f'None with {type(inner).__name__}, which has no data_preprocessor', list(image_size))
        self.preprocessor, self.key = preprocessor, key
        self.image_size = check_image_size(inner, image_size, key)
        INTERPOLATION.check(interpolation, 'interpolation')
        self.divisor = int(getattr(preprocessor, 'pad_size_divisor', 1))
        self.pad_value = getattr(preprocessor, 'pad_value', 0)
        self.interpolation: dict[str, Any] = dict(mode=interpolation)
        if interpolation in ANTIALIASED:
            self.interpolation['antialias'] = True

    def __call__(self, data: Any, training: bool) -> Any:
        """Resize a batch.

        Args:
            data: what the data preprocessor returned: a dict with ``inputs`` and ``data_samples``, or a sequence that
                begins so. It is left as it is.
            training: whether ground truth is scaled too.

        Returns:
            The same with other images and samples.
        """
        if isinstance(data, Mapping):
            inputs, samples = self._batch(data['inputs'], data.get('data_samples'), training)
            return {**data, 'inputs': inputs, **({'data_samples': samples} if 'data_samples' in data else {})}
        inputs, samples = self._batch(data[0], data[1] if len(data) > 1 else None, training)
        return type(data)([inputs, samples, *data[2:]][:len(data)])

    def hook(self, module: nn.Module, args: tuple, kwargs: Mapping[str, Any], output: Any) -> Any:
        """The same, as a forward hook of a data preprocessor; a method, so that models can be copied and pickled."""
        return self(output, bool(kwargs.get('training', args[1] if len(args) > 1 else False)))

    def _batch(self, inputs: Any, samples: Any, training: bool) -> tuple[Any, Any]:
        if not isinstance(inputs, Tensor) or inputs.dim() != 4:
            raise self._must_be('None with a data preprocessor that returns no tensor of images (N, C, H, W)')
        detection = _is_detection(samples)
        old = [tuple(sample.img_shape[:2]) for sample in samples] if detection else [tuple(inputs.shape[2:])] * len(
            inputs)
        new = [self._new_shape(shape) for shape in old]
        if not detection and new:
            self._check(old[0], new[0])
        if new == old:
            return inputs, samples
        size = tuple(map(max, zip(*map(self._padded, new))))
        resized = inputs.new_full((*inputs.shape[:2], *size), self.pad_value)
        for image, target, (height, width), shape in zip(inputs, resized, old, new):
            target[:, :shape[0], :shape[1]] = self._resize(image[None, :, :height, :width], shape)[0]
        if detection:
            samples = [self._sample(sample, shape, size, training) for sample, shape in zip(samples, new)]
        return resized, samples

    def _check(self, old: tuple[int, ...], new: tuple[int, ...]) -> None:
        """Refuse an image size that images without boxes cannot be brought to, or that the pipeline should give."""
        if sorted(self._padded(new)) != sorted(self.image_size):
            raise self._must_be(f'of the ratio of the images, which is kept ({list(old)} become {list(new)}); the data '
                                'pipeline has to crop or resize them all to one size')
        if max(new) > max(old):
            raise self._must_be(f'at most {list(old)}, the size of the images that the data pipeline gives')

    def _must_be(self, allowed: str) -> ConfigError:
        return must_be(self.key, allowed, list(self.image_size))

    def _padded(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(-(-side // self.divisor) * self.divisor for side in shape)

    def _new_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Height and width of an image after scaling."""
        padded = self._padded(shape)
        scale = min(max(self.image_size) / max(padded), min(self.image_size) / min(padded))
        return tuple(max(1, int(side * scale + .5)) for side in shape)  # rounded as MMCV does

    def _resize(self, images: Tensor, shape: tuple[int, ...]) -> Tensor:
        if tuple(images.shape[2:]) == shape:
            return images
        return functional.interpolate(images, shape, **self.interpolation)

    def _sample(self, sample: BaseDataElement, shape: tuple[int, ...], size: tuple[int, ...],
                training: bool) -> BaseDataElement:
        """The sample of a resized image; the old one is left as it is, since the data set may keep it."""
        old_shape = tuple(sample.img_shape[:2])
        factor = shape[1] / old_shape[1], shape[0] / old_shape[0]  # width, height, as in MMDetection
        resized = sample.new()
        resized.set_metainfo(dict(img_shape=shape, pad_shape=self._padded(shape), batch_input_shape=size))
        if 'scale_factor' in sample:
            before = sample.scale_factor
            resized.set_metainfo(dict(scale_factor=(before[0] * factor[0], before[1] * factor[1])))
        if training:
            if shape != old_shape and any(name in sample for name in MAPS):
                raise self._must_be(f'None in training with {" or ".join(MAPS)}')
            for name in GROUND_TRUTH:
                if name in sample:
                    setattr(resized, name, self._ground_truth(sample.get(name), old_shape, shape, size, factor))
        return resized

    def _ground_truth(self, instances: Any, old_shape: tuple[int, ...], shape: tuple[int, ...], size: tuple[int, ...],
                      factor: tuple[float, float]) -> Any:
        """Instances with boxes and masks of the resized image."""
        resized = instances.new()
        if 'bboxes' in instances:
            boxes = instances.bboxes
            resized.bboxes = scale_boxes(boxes.clone() if isinstance(boxes, BaseBoxes) else boxes, factor)
        if 'masks' in instances:
            masks = instances.masks
            padded = (masks.height, masks.width) != old_shape
            if padded:
                masks = masks.crop(np.array([0, 0, old_shape[1], old_shape[0]]))
            masks = masks.resize(shape)
            resized.masks = masks.pad(size, getattr(self.preprocessor, 'mask_pad_value', 0)) if padded else masks
        return resized


def _is_detection(samples: Any) -> bool:
    """Whether these are samples of a detector, whose images may be smaller than the batch."""
    return isinstance(samples, (list, tuple)) and len(samples) > 0 and all(
        isinstance(sample, BaseDataElement) and 'batch_input_shape' in sample and 'img_shape' in sample
        for sample in samples)
