"""What becomes of an image's size on its way to the network of an ordinary run, as plain data."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmbignas.data.pipeline_size import evaluation_pipeline, own_preprocessor
from mmbignas.data.resizing import ANTIALIASED
from mmbignas.utils.checks import type_name


def image_steps(cfg: Mapping[str, Any]) -> dict[str, Any] | None:
    """How images are resized and cropped, by the test's data pipeline and then by the data preprocessor.

    Args:
        cfg: config of a run with a plain network.

    Returns:
        dict: of the pipeline, ``scale`` ``[width, height]`` in pixels and ``keep_ratio``, or ``scale`` in pixels and
        ``edge`` (``short``, ``long``, ``width``, ``height``), the one that becomes so long; beside either
        ``interpolation`` and ``backend`` (``cv2`` or ``pillow``) as MMCV has them; ``center_crop``
        ``[width, height]``, the middle of the image after that. Of a preprocessor that resizes, ``then``, see
        :func:`~mmbignas.export.network.describe`. ``None`` where the config says nothing of it.
    """
    steps: dict[str, Any] = {}
    for transform in evaluation_pipeline(cfg, ('test', 'val')):
        kind = type_name(transform)
        if kind == 'Resize' and transform.get('scale') is not None:
            steps = dict(scale=_both(transform['scale']), keep_ratio=bool(transform.get('keep_ratio', False)),
                         **_way(transform))
        elif kind == 'ResizeEdge':
            steps = dict(scale=transform['scale'], edge=transform.get('edge', 'short'), **_way(transform))
        elif kind == 'CenterCrop':
            steps['center_crop'] = _both(transform['crop_size'])
    own = own_preprocessor(cfg)
    if own is not None:
        interpolation = own.get('interpolation_type', 'bicubic')
        steps['then'] = dict(scale=list(reversed(own['image_size'])), keep_ratio=True, interpolation=interpolation,
                             antialias=interpolation in ANTIALIASED)
    return steps or None


def _way(transform: Mapping[str, Any]) -> dict[str, Any]:
    return {name: transform.get(name, default) for name, default in dict(
        interpolation='bilinear', backend='cv2').items()}  # MMCV's own defaults


def _both(size: int | Sequence[int]) -> list[int]:
    """Width and height of a size as MMCV takes it."""
    return [size, size] if isinstance(size, int) else list(size)
