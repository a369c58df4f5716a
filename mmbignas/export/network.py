"""An ordinary network on its way out of MMEngine: what it takes, what it gives, and its graph."""
from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet.models import SingleStageDetector
from torch import Tensor, nn

from mmbignas.data import check_image_size
from mmbignas.dependencies import installed
from mmbignas.space import ModuleSpace
from mmbignas.supernet import image_channels
from mmbignas.utils.models import tensors_in
from mmbignas.utils.rules import must_be

PADDING = 'right and bottom, after normalisation'  # as MMEngine does it
TRACED_BATCH = 2  # with one image, torch would take the batch size for a constant


class Network(nn.Module):
    """The way from normalised images to raw outputs, by name and in order.

    Args:
        model: an ordinary model without spaces, in any mode and on any device; it is copied, not changed.
        image_size: height and width in pixels, after padding to the size divisor.

    Raises:
        ConfigError: for a supernet, a two-stage detector, an image size that the model does not see, or a model that
            cannot be run on an image alone.

    Attributes:
        input_names: ``images``.
        image_size: height and width.
        output_names: ``cls_score_0``, ..., ``bbox_pred_0``, ... by level for a single-stage detector whose head gives
            these two; ``logits``, ``(N, classes)``, before softmax, for a classifier of MMPretrain's; ``output_0``, ...
            for any other model.
    """

    input_names = ['images']

    def __init__(self, model: nn.Module, image_size: Sequence[int]) -> None:
        super().__init__()
        check_plain(model)
        if getattr(model, 'roi_head', None) is not None:
            raise must_be('model', 'no two-stage detector, of which neither ONNX nor .pt2 is written (MMDeploy takes '
                          'the exported folder, an ordinary config and checkpoint)', type(model).__name__)
        self.image_size = check_image_size(model, image_size, 'image_size')
        self.model = copy.deepcopy(model).eval().to('cpu', torch.float32)
        try:
            with torch.no_grad():
                outputs = self.model(torch.zeros(1, image_channels(model), *self.image_size), mode='tensor')
        except Exception as error:
            raise must_be('model', f"one whose mode 'tensor' needs nothing but an image, here of {self.image_size} "
                          f'({type(error).__name__}: {" ".join(str(error).split())})', type(model).__name__) from error
        self.output_names = _output_names(model, outputs)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the raw outputs, one for each of ``output_names``, of normalised images ``(N, C, H, W)``."""
        return tuple(tensors_in(self.model(images, mode='tensor')))

    def random_images(self, count: int) -> Tensor:
        """Images of noise as the model sees them, the same for the same count."""
        generator = torch.Generator().manual_seed(count)
        return torch.randn(count, image_channels(self.model), *self.image_size, generator=generator)


def check_plain(model: nn.Module) -> None:
    """Make sure that a model is one network and not many.

    Raises:
        ConfigError: when it was built from a config with spaces, even with a single choice each.
    """
    # A searchable module whose config has numbers has a space, too: of itself.
    spaces = {path: module.search_space for path, module in model.named_modules()
              if isinstance(getattr(module, 'search_space', None), ModuleSpace)}
    searched = [path for path, space in spaces.items() if space.is_supernet]
    if searched:
        raise must_be('model', 'an ordinary network, such as python tools/export_subnet.py cuts out of a supernet',
                      f'{type(model).__name__} with spaces in {", ".join(searched)}')


def trace(network: nn.Module, inputs: tuple[Tensor, ...], dynamic_batch: bool) -> torch.export.ExportedProgram:
    """The graph of a network, without traces of the machine that made it.

    Args:
        network: in eval mode.
        inputs: what it is to take; each is ``(N, ...)``.
        dynamic_batch: whether N may be another number later on; here it must then be 2 or more.
    """
    batch = torch.export.Dim('batch')
    shapes = tuple({0: batch} for _ in inputs) if dynamic_batch else None
    with torch.no_grad():
        program = torch.export.export(network, inputs, dynamic_shapes=shapes)
    for node in program.graph.nodes:
        node.meta.pop('stack_trace', None)  # file names and source lines
    program.example_inputs = None  # whole images
    return program


def describe(network: Network, classes: Sequence[str] | None = None,
             resize: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What you have to know to give images to a network, as plain data.

    Args:
        network: the network.
        classes: names of the classes, if they are known.
        resize: how images are scaled (and cropped) before they are padded, if it is known, such as
            ``dict(scale=[width, height], keep_ratio=True)``. With ``keep_ratio`` an image becomes as large as it can
            be without its longer side exceeding the longer one of ``scale``, and its shorter side the shorter one. An
            entry ``then`` is a second such resize, of the normalised image, where ``bicubic`` and ``bilinear`` with
            ``antialias`` are Pillow's, on floats. Its factor is that which brings the image with its sides rounded up
            to multiples of ``pad_size_divisor`` to ``scale``.

    Returns:
        dict: ``image_size`` (height, width), ``resize``, ``padding`` (where, and when), ``pad_size_divisor``,
        ``pad_value``, ``bgr_to_rgb`` (whether the channels of an image as OpenCV reads it are to be reversed),
        ``channels`` (their order after that, ``RGB`` or ``BGR``; ``None`` where there are not three), ``mean`` and
        ``std`` (of the channels after that; ``None`` for images that are not normalised) and ``classes``.
    """
    preprocessor: Any = getattr(network.model, 'data_preprocessor', None)
    normalises = getattr(preprocessor, '_enable_normalize', False)
    # The first is MMEngine's name, the second one that of MMPretrain's classifiers.
    bgr_to_rgb = bool(getattr(preprocessor, '_channel_conversion', getattr(preprocessor, 'to_rgb', False)))
    channels = None if image_channels(network.model) != 3 else 'RGB' if bgr_to_rgb else 'BGR'
    return dict(
        image_size=list(network.image_size), resize=None if resize is None else dict(resize), padding=PADDING,
        pad_size_divisor=getattr(preprocessor, 'pad_size_divisor', 1), pad_value=getattr(preprocessor, 'pad_value', 0),
        bgr_to_rgb=bgr_to_rgb, channels=channels,
        mean=preprocessor.mean.flatten().tolist() if normalises else None,
        std=preprocessor.std.flatten().tolist() if normalises else None,
        classes=None if classes is None else list(classes))


def _output_names(model: nn.Module, outputs: Any) -> list[str]:
    if isinstance(model, SingleStageDetector) and len(outputs) == 2 and all(
            isinstance(levels, (list, tuple)) for levels in outputs):
        return [f'{name}_{level}' for name, levels in zip(('cls_score', 'bbox_pred'), outputs)
                for level in range(len(levels))]
    names = [f'output_{index}' for index, _ in enumerate(tensors_in(outputs))]
    return ['logits'] if len(names) == 1 and _gives_logits(model) else names


def _gives_logits(model: nn.Module) -> bool:
    if not installed('mmpretrain'):
        return False
    from mmpretrain.models import BaseClassifier, ClsHead
    return isinstance(model, BaseClassifier) and isinstance(getattr(model, 'head', None), ClsHead)
