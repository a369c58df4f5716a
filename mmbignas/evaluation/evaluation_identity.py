"""What the figures of an evaluation depend on, see :mod:`mmbignas.utils.identity`."""
from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from mmengine.runner import Runner

from mmbignas.evaluation.bn_calibration_hook import BNCalibrationHook
from mmbignas.space import SearchSpace
from mmbignas.supernet.hashes import model_hash, space_hash
from mmbignas.utils.configs import type_name
from mmbignas.utils.identity import PLACES, config_hash, settings_of

# What a Runner takes and its evaluation does not depend on. Seeds: calibration, choices of images and of subnets have
# their own.
NOT_EVALUATED = frozenset((
    'train_cfg', 'optim_wrapper', 'param_scheduler', 'auto_scale_lr', 'work_dir', 'load_from', 'resume', 'launcher',
    'env_cfg', 'randomness', 'log_processor', 'log_level', 'visualizer', 'experiment_name', 'cfg'))
# Hooks that change no prediction, beside that which calibrates, whose images count as it uses them.
WITHOUT_INFLUENCE = frozenset((
    'BNCalibrationHook', 'CalibrateFirstHook', 'ValidateFirstHook', 'IterTimerHook', 'LoggerHook', 'ParamSchedulerHook',
    'CheckpointHook', 'DistSamplerSeedHook', 'RuntimeInfoHook', 'EarlyStoppingHook', 'ProfilerHook',
    'MemoryProfilerHook', 'EmptyCacheHook', 'NumClassCheckHook', 'DetVisualizationHook', 'VisualizationHook',
    'ResumeHook', 'StopHook', 'CollapseHook', 'SubnetLossHook', 'SameOnAllRanksHook', 'SkipNonFiniteHook',
    'RegularizeLargestHook', 'ChannelsLastHook', 'DistillHook'))
# Options of a loop that say which subnets are evaluated, by whom, and what is written about them.
CHOICE = frozenset((
    'type', 'subnet_count', 'subnet_sample_mode', 'flops_range', 'baseline_flops', 'large_flops', 'lut_path', 'metric1',
    'metric2', 'predicted_count', 'parallel', 'seed', 'constraints', 'objectives', 'sampler', 'predictor', 'storage',
    'study_name', 'stale_after'))


def evaluation_identity(runner: Any, scorer: Any, space: SearchSpace, calib_bn: bool) -> dict[str, Any]:
    """What the figures of a run depend on: weights, space, data, and all of the config that can matter.

    Args:
        runner: the runner.
        scorer: a :class:`~mmbignas.evaluation.scorer.SubnetScorer`, which has model, data and options as they are used.
        space: the space of the subnets, with the image sizes to choose from.
        calib_bn: whether the subnets are calibrated.
    """
    cfg, stage, finetuning = runner.cfg, scorer.stage, scorer.finetuning
    others = [f'{own}_{part}' for own in ('train', 'val', 'test') if own != stage
              for part in ('cfg', 'dataloader', 'evaluator')]
    parts = {name: cfg[name] for name in inspect.signature(Runner).parameters
             if name in cfg and name not in NOT_EVALUATED and name not in others}
    parts['custom_hooks'] = [own for own in parts.get('custom_hooks') or () if _counts(own)]
    parts['default_hooks'] = {name: own for name, own in (parts.get('default_hooks') or {}).items() if _counts(own)}
    # What is used, whether the config says it or not.
    if calib_bn:
        images = next(hook.images for hook in runner.hooks if isinstance(hook, BNCalibrationHook))
        parts[BNCalibrationHook.__name__] = dict(num_images=images.num_images, dataloader=images.dataloader)
    if finetuning is not None:
        parts['train_dataloader'] = finetuning.dataloader
    resized = scorer.only_size is not None or len(space.image_sizes) > 1
    options = dict(
        calib_bn=calib_bn, fp16=scorer.fp16, image_size=scorer.only_size,
        val_images=None,  # the data set has no others
        interpolation_type=scorer.interpolation if resized else None, sample_with_finetune=None if finetuning is None
        else dict(max_iters=finetuning.max_iters, optim_wrapper=finetuning.optim_wrapper))
    loop = {name: value for name, value in (parts.get(f'{stage}_cfg') or {}).items() if name not in CHOICE}
    parts[f'{stage}_cfg'] = {**loop, **options}
    return dict(weights=model_hash(scorer.supernet.model), space=space_hash(space),
                **dataset_identity(scorer.dataloader.dataset), **settings_of(**parts))


def _counts(hook: Any) -> bool:
    """Whether a hook, or its config, may change predictions; calibration is known otherwise."""
    kind = type_name(hook) if isinstance(hook, Mapping) else type(hook).__name__
    return bool(hook) and kind not in WITHOUT_INFLUENCE


def dataset_identity(dataset: Any) -> dict[str, Any]:
    """What a data set holds: how many images, its classes and, as far as it tells, images and annotations.

    Images count by their names, and by their sizes in bytes where they are files; folders do not count.
    """
    infos = range(len(dataset)) if hasattr(dataset, 'get_data_info') else ()
    digest = hashlib.sha256()
    for index in infos:
        info = dataset.get_data_info(index)
        files = {key: value for key, value in info.items() if key in PLACES or key.endswith('_path')}
        rest = {key: value for key, value in info.items() if key not in files}
        digest.update(config_hash([[(key, *_file(value)) for key, value in sorted(files.items())], rest]).encode())
    return {'data.length': len(dataset), **({'data.images': digest.hexdigest()} if infos else {}),
            **settings_of(**{'data.metainfo': dict(getattr(dataset, 'metainfo', None) or {})})}


def _file(path: Any) -> tuple[str, int | None]:
    """Name of a file, and its size in bytes; ``None`` where it is no file here."""
    try:
        return PurePath(str(path)).name, os.path.getsize(path)
    except (OSError, TypeError, ValueError):
        return PurePath(str(path)).name, None
