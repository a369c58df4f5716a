"""The sizes of images in the config of an ordinary run: what its pipeline makes of them, and a subnet's own size."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from mmbignas.data.resizing import ANTIALIASED
from mmbignas.space import ImageSize
from mmbignas.supernet import model_config
from mmbignas.utils.configs import type_name

RESIZED = 'ResizedDataPreprocessor'


def sized_model_config(model_cfg: Mapping[str, Any], cfg: Mapping[str, Any], model: nn.Module,
                       image_size: ImageSize | None) -> dict[str, Any]:
    """The model's config, with a data preprocessor that gives images of its own size where the pipeline does not.

    Args:
        model_cfg: config of a subnet as a plain network.
        cfg: config of the supernet's run.
        model: the supernet, whose preprocessor has a class where the config names none.
        image_size: height and width in pixels; ``None`` for those of the pipeline.
    """
    own = dict(model_cfg)
    if image_size is None or sorted(image_size) == sorted(pipeline_size(cfg) or ()):
        return own
    preprocessor = dict(_preprocessor(cfg))
    preprocessor.setdefault('type', type(model.data_preprocessor))
    own['data_preprocessor'] = dict(type=f'mmbignas.{RESIZED}', preprocessor=preprocessor, image_size=list(image_size),
                                    interpolation_type=interpolation_of(cfg))
    return own


def interpolation_of(cfg: Mapping[str, Any]) -> str:
    """How the run of a config resizes images to several sizes: as its test, validation or training says."""
    stages = [cfg.get(f'{stage}_cfg') or {} for stage in ('test', 'val', 'train')]
    return next((own['interpolation_type'] for own in stages if 'interpolation_type' in own), 'bicubic')


def image_sizes_of(cfg: Mapping[str, Any]) -> Any:
    """The image size or sizes in the config of a run: the test's, else the validation's, else ``None``."""
    stages = [cfg.get(f'{stage}_cfg') or {} for stage in ('test', 'val')]
    return next((own['image_size'] for own in stages if own.get('image_size') is not None), None)


def pipeline_size(cfg: Mapping[str, Any]) -> ImageSize | None:
    """Size of the images that the data pipeline of the evaluation gives, after padding.

    Args:
        cfg: config of a run. What counts is the last transform of the pipeline that sets the size of images.

    Returns:
        tuple: the lengths of its sides; ``None`` where the pipeline does not tell.
    """
    sides = None
    for transform in evaluation_pipeline(cfg):
        kind = type_name(transform)
        if kind == 'Resize':
            sides = _sides(transform.get('scale'))
        elif kind.endswith('CenterCrop'):
            sides = _sides(transform.get('crop_size'))
        elif kind == 'ResizeEdge':
            sides = None  # the other edge is as long as it is
    if sides is None:
        return None
    divisor = _preprocessor(cfg).get('pad_size_divisor', 1) if isinstance(cfg.get('model'), Mapping) else 1
    width, height = (-(-side // divisor) * divisor for side in sides)
    return height, width


def own_preprocessor(cfg: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Config of the data preprocessor of :func:`sized_model_config`; ``None`` where a run has another one."""
    preprocessor = _preprocessor(cfg)
    return preprocessor if type_name(preprocessor) == RESIZED else None


def evaluation_pipeline(cfg: Mapping[str, Any],
                        stages: Sequence[str] = ('val', 'test')) -> Iterable[Mapping[str, Any]]:
    """The transforms of a config's evaluation that set the size of images.

    Args:
        cfg: config of a run.
        stages: of validation and test, what counts first, and what where that has no data.

    Returns:
        list: those of each of several data sets, where all have the same; none where they differ.
    """
    loaders = [cfg.get(f'{stage}_dataloader') or {} for stage in stages]
    dataset = next((loader['dataset'] for loader in loaders if loader.get('dataset')), None)
    sizing = [[transform for transform in pipeline if _sets_size(type_name(transform))]
              for pipeline in _pipelines(dataset)]
    return sizing[0] if sizing and all(own == sizing[0] for own in sizing) else []


def _sets_size(kind: str) -> bool:
    return kind in ('Resize', 'ResizeEdge') or kind.endswith('CenterCrop')


def _pipelines(dataset: Any) -> Iterator[list[Mapping[str, Any]]]:
    """The transforms of each data set within the config of one; those of a wrapper come last."""
    if not isinstance(dataset, Mapping):
        return
    own = list(dataset.get('pipeline') or ())
    if 'dataset' not in dataset and 'datasets' not in dataset:
        yield own
    for inner in (dataset.get('dataset'), *(dataset.get('datasets') or ())):
        for pipeline in _pipelines(inner):
            yield pipeline + own


def image_steps(cfg: Mapping[str, Any]) -> dict[str, Any] | None:
    """How images are resized and cropped, by the test's data pipeline and then by the data preprocessor.

    Args:
        cfg: config of a run with a plain network.

    Returns:
        dict: of the pipeline, ``scale`` ``[width, height]`` in pixels and ``keep_ratio``, or ``scale`` in pixels and
        ``edge`` (``short``, ``long``, ``width``, ``height``), the one that becomes so long; beside either
        ``interpolation`` and ``backend`` (``cv2`` or ``pillow``) as MMCV has them; ``center_crop``
        ``[width, height]``, the middle of the image after that. ``then``, for a preprocessor that resizes, see
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


def _preprocessor(cfg: Mapping[str, Any]) -> Mapping[str, Any]:
    """Config of the data preprocessor; empty where the model's class has its own."""
    return model_config(cfg, 'config').get('data_preprocessor') or {}


def _sides(size: Any) -> tuple[int, int] | None:
    """Width and height from a size as MMCV takes it."""
    if isinstance(size, int):
        return size, size
    return tuple(size) if isinstance(size, Sequence) and len(size) == 2 else None


def _way(transform: Mapping[str, Any]) -> dict[str, Any]:
    return {name: transform.get(name, default) for name, default in dict(
        interpolation='bilinear', backend='cv2').items()}  # MMCV's own defaults


def _both(size: int | Sequence[int]) -> list[int]:
    """Width and height of a size as MMCV takes it."""
    return [size, size] if isinstance(size, int) else list(size)
