"""Two-stage detectors as families: calibration reaches the second stage."""
from __future__ import annotations

import logging
import random

import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS

from mmbignas.supernet import Supernet, calibrate_bn, subnet_config, subnet_state_dict
from tests.elastic.networks import build, elastic, mask_rcnn
from tests.supernet.test_calibration import detection_batches, reference, scramble

SECOND_STAGE = {'roi_head.bbox_head.shared_convs.0.bn', 'roi_head.bbox_head.shared_convs.3.bn',
                'roi_head.mask_head.convs.0.bn'}


def test_statistics_of_the_second_stage_are_those_of_the_cut_network() -> None:
    """Over the regions that the first stage proposes in the images, as in an evaluation."""
    logging.disable(logging.WARNING)
    config = elastic(mask_rcnn(), example=64)
    model = scramble(build(ConfigDict(config)))
    facade, rng, batches = Supernet(model), random.Random(0), detection_batches()
    for subnet in [facade.space.min(), facade.space.max(), *(facade.space.sample(rng) for _ in range(1))]:
        facade.apply(subnet)
        plain = MODELS.build(ConfigDict(subnet_config(config, model, subnet)))
        plain.load_state_dict(subnet_state_dict(model, plain))
        expected = reference(plain, batches)
        assert expected.keys() >= SECOND_STAGE
        calibrate_bn(model, batches)
        found = subnet_state_dict(model, plain)
        for name, (mean, var) in expected.items():
            torch.testing.assert_close(found[f'{name}.running_mean'].double(), mean, rtol=2e-6, atol=2e-6)
            torch.testing.assert_close(found[f'{name}.running_var'].double(), var, rtol=2e-6, atol=2e-6)
