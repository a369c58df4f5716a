"""Evaluated subnets, made up."""
from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from mmbignas.analysis import AccuracySample, EvaluatedSubnet
from mmbignas.space import ImageSize

SIZES = ((256, 320), (384, 480), (512, 640))
METRIC1, METRIC2 = 'coco/bbox_mAP', 'coco/bbox_mAP_50'


def subnets(count: int, sizes: Sequence[ImageSize] = SIZES[:1], latency: bool = False, seed: int = 0,
            ) -> list[EvaluatedSubnet]:
    """Subnets that gain with their MACs, less and less so, and differ from each other."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        size = rng.choice(sizes)
        depth = [rng.randint(1, 4) for _ in range(4)]
        widths = [rng.randrange(16, 65, 8) for _ in range(4)]
        kernels = [rng.choice([1, 3, 5]) for _ in range(sum(depth))]
        params = sum(width**2 * blocks for width, blocks in zip(widths, depth)) * 20 + sum(kernels) * 100
        macs = params * size[0] * size[1] // 40
        value = 0.6 - 0.4 * (10**9 / (macs + 10**9))**0.5 + rng.gauss(0, 0.015)
        metrics = {} if rng.random() < 0.01 else {METRIC1: value, METRIC2: min(1., 1.4 * value + rng.gauss(0, 0.01)),
                                                  'coco/bbox_mAP_s': -1.}
        settings: dict[str, Any] = {'backbone': dict(depth=depth, out_channel=widths, kernel_size=kernels),
                                    'bbox_head.cls_tower': dict(depth=[2], out_channel=[rng.choice([32, 64])])}
        if len(sizes) > 1:
            settings['image_size'] = list(size)
        found.append(EvaluatedSubnet(rng.randrange(10**6), settings, size, macs, params,
                                     macs / 10**8 + rng.random() if latency else None, metrics))
    return found


def sample(count: int, sizes: Sequence[ImageSize] = SIZES[:1], latency: bool = False, **arguments: Any,
           ) -> AccuracySample:
    """A sample of them."""
    arguments = dict(metric1=METRIC1, metric2=METRIC2, marks={}, flops_range=(None, None), space_size=10**6) | arguments
    return AccuracySample(subnets(count, sizes, latency), **arguments)
