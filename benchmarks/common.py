"""What the benchmarks share: a fixed process, timing in interleaved rounds, synthetic images, the report.

Importing this module fixes the process, so it has to be imported before torch: Python is started anew with one thread
and with malloc settings under which freed memory stays in the process. With glibc's defaults, tensors go back to the
operating system and come again as page faults, whose number depends on what else is allocated; that alone moves a
ratio by 0.1. Variables that are set already are kept.
"""
from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {
    'OMP_NUM_THREADS': '1',
    'MALLOC_MMAP_MAX_': '0',
    'MALLOC_TRIM_THRESHOLD_': str(1 << 40),
    'MALLOC_TOP_PAD_': str(1 << 28),
    'KINETO_LOG_LEVEL': '99',  # the profiler's messages
}
if ENVIRONMENT.keys() - os.environ.keys():
    os.execve(sys.executable, sys.orig_argv, {**ENVIRONMENT, **os.environ})
sys.path.insert(0, str(ROOT))

# ruff: noqa: E402 (only now is the process as it should be)
import logging
import statistics
import time
import warnings

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import nn

import mmbignas  # noqa: F401 (registers what the configs name)

torch.set_num_threads(1)
warnings.simplefilter('ignore')
logging.getLogger('mmengine').setLevel(logging.ERROR)
register_all_modules()

Key = TypeVar('Key')
DETECTOR_CONFIG = str(ROOT / 'configs' / 'retinanet_r18_supnet.py')


def build_detector(model_cfg: Mapping[str, Any] | None = None) -> nn.Module:
    """Build a detector in train mode.

    Args:
        model_cfg: its config; ``None`` for the supernet of ``configs/retinanet_r18_supnet.py``.
    """
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(DETECTOR_CONFIG).model if model_cfg is None else model_cfg)
    for module in model.modules():
        if isinstance(module, BaseModule):
            module._is_init = True  # random weights will do
    return model.train()


def synthetic_batch(height: int, width: int, batch_size: int, seed: int = 0) -> dict[str, list]:
    """A batch as a dataloader of MMDetection yields it: noise with four boxes an image.

    Args:
        height: of the images, in pixels.
        width: likewise.
        batch_size: number of images.
        seed: of the noise and the boxes.

    Returns:
        dict: ``inputs``, 8-bit images of shape ``(3, height, width)``, and ``data_samples``.
    """
    rng = torch.Generator().manual_seed(seed)
    size = torch.tensor([width, height])
    images, samples = [], []
    for _ in range(batch_size):
        images.append(torch.randint(256, (3, height, width), generator=rng, dtype=torch.uint8))
        centre, extent = (torch.rand(2, 4, 2, generator=rng) * 0.5 + 0.1) * size
        boxes = torch.cat([centre, torch.minimum(centre + extent, size - 1)], dim=1)
        metainfo = dict(img_shape=(height, width), ori_shape=(height, width), scale_factor=(1., 1.))
        sample = DetDataSample(metainfo=metainfo)
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.randint(80, (4,), generator=rng))
        samples.append(sample)
    return dict(inputs=images, data_samples=samples)


def seconds(function: Callable[[], Any]) -> float:
    """CPU time of a call.

    In a process of one thread that is the wall-clock time on an idle core, and on a busy one it is disturbed less.
    """
    begin = time.process_time()
    function()
    return time.process_time() - begin


def interleave(cases: Mapping[Key, Callable[[], float]], rounds: int) -> dict[Key, list[float]]:
    """Measure cases in turns, so that a slow phase of the machine meets all of them.

    Args:
        cases: name -> function that prepares and runs the case once and returns its seconds.
        rounds: number of rounds, the order of the cases being reversed in every other one. One more comes before
            them, to warm up.

    Returns:
        dict: name -> seconds of each round.
    """
    results: dict[Key, list[float]] = {name: [] for name in cases}
    for index in range(-1, rounds):
        for name in list(cases)[::1 if index % 2 == 0 else -1]:
            value = cases[name]()
            if index >= 0:
                results[name].append(value)
    return results


def median_ratio(ours: Sequence[float], peer: Sequence[float]) -> float:
    """Median over the rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(ours, peer, strict=True))


def figure(name: str, value: float, bar: float, unit: str = 'ratio') -> dict[str, Any]:
    """One result, which holds when it is not above its bar."""
    return dict(name=name, value=round(value, 4), unit=unit, bar=bar, holds=value <= bar)


def report(name: str, figures: Sequence[Mapping[str, Any]], **details: Any) -> None:
    """Print the machine, the figures as a table, and as the last line everything as one JSON object.

    Args:
        name: of the benchmark.
        figures: from :func:`figure`. The first is the benchmark's own ``value``; ``holds`` is true when all hold.
        **details: more entries of the JSON object.
    """
    setting = machine()
    print('\n' + ', '.join(f'{key} {value}' for key, value in setting.items()))
    width = max(len(entry['name']) for entry in figures)
    for entry in figures:
        print(f'{entry["name"]:{width}}  {entry["value"]:8.4f} {entry["unit"]}  (bar {entry["bar"]:g}: '
              f'{"holds" if entry["holds"] else "DOES NOT HOLD"})')
    head = {key: figures[0][key] for key in ('value', 'unit', 'bar')}
    holds = all(entry['holds'] for entry in figures)
    print(json.dumps(dict(name=name, **head, holds=holds, figures=list(figures), **details, machine=setting)))


def machine() -> dict[str, Any]:
    """What a figure depends on beside the code."""
    cpu = next((line.split(':')[1].strip() for line in Path('/proc/cpuinfo').read_text().splitlines()
                if line.startswith('model name')), 'unknown')
    return dict(torch=torch.__version__, cpu=cpu, threads=torch.get_num_threads(),
                **{name: os.environ[name] for name in ENVIRONMENT if name.startswith('MALLOC')})
