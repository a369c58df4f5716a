"""What an elastic detector costs more than the networks that are cut out of it, in forward and backward pass.

    python benchmarks/elastic_overhead.py [rtmdet] [retinanet]

RTMDet-tiny and RetinaNet-R50 of MMDetection, elastic in widths and depths by ``mmbignas.Elastic``, in mode ``loss`` on
two images of 320x320 with four boxes each. The floor is the cut network of each subnet, and for the largest the stock
network; see ``overhead.py`` for what is measured. Beside it, the milliseconds of applying a random subnet.
"""
from __future__ import annotations

import random
import sys
from functools import partial
from pathlib import Path
from typing import Any

import common
import mmdet
import torch
from mmengine.config import Config
from overhead import check_losses, detector_loss, measure, sandwich

from mmbignas.supernet import Supernet, subnet_config, subnet_state_dict

CONFIGS = dict(rtmdet='rtmdet/rtmdet_tiny_8xb32-300e_coco.py', retinanet='retinanet/retinanet_r50_fpn_1x_coco.py')
SIZE, BATCH_SIZE = 320, 2
BARS = dict(sandwich=1.05, max=1.01, subnet=1.08)
APPLY_BAR, APPLIED = 2., 300  # milliseconds; number of subnets


def elastic_config(name: str) -> dict[str, Any]:
    """The model of a stock config as a supernet, which can be trained on one CPU."""
    config = Config.fromfile(Path(mmdet.__file__).parent / '.mim' / 'configs' / CONFIGS[name]).model
    config.backbone.update(init_cfg=None, norm_eval=False, **(dict(frozen_stages=-1) if name == 'retinanet' else {}))
    for part in config.values():
        if 'SyncBN' in str(part):
            part.norm_cfg = dict(type='BN')
    return dict(config, type='mmbignas.Elastic', of=f'mmdet.{config.type}',
                width=dict(ratios=[0.25, 0.5, 0.75, 1.0], divisor=8), depth='residual')


def apply_milliseconds(supernet: Supernet) -> list[float]:
    """What applying a random subnet takes, when its layers' widths were met before."""
    rng = random.Random(1)
    subnets = [supernet.space.sample(rng) for _ in range(APPLIED)]
    for subnet in subnets:
        supernet.apply(subnet)
    rng.shuffle(subnets)
    return [1000 * common.seconds(partial(supernet.apply, subnet)) for subnet in subnets]


def main() -> None:
    """Measure the detectors that the command line names, or both."""
    figures, details = [], {}
    for name in sys.argv[1:] or CONFIGS:
        config = elastic_config(name)
        model = common.build_detector(config)
        supernet = Supernet(model)
        subnets = sandwich(supernet)
        twins = {}
        for key, subnet in subnets.items():
            twins[key] = common.build_detector(subnet_config(config, model, subnet))
            supernet.apply(subnet)
            twins[key].load_state_dict(subnet_state_dict(model, twins[key]))
        with torch.no_grad():
            data = model.data_preprocessor(common.synthetic_batch(SIZE, SIZE, BATCH_SIZE), True)
        loss = detector_loss(data)
        check_losses(loss, supernet, subnets, twins)
        new_figures, new_details = measure(name, loss, supernet, subnets, twins, BARS)
        figures += [*new_figures, common.figure(f'{name} apply', common.statistics.median(apply_milliseconds(supernet)),
                                                APPLY_BAR, 'ms')]
        details.update(new_details)
    common.report('elastic_overhead', figures, seconds_plain_supernet=details)


if __name__ == '__main__':
    main()
