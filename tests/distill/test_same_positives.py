"""Teacher and student are assigned the same positives, and dense losses compare the same anchors."""
import copy
import random

import pytest
import torch

from mmbignas.supernet import Supernet
from tests.small_models import TRAIN_CFG, batch, big_retina_head, build, retinanet

ASSIGNERS = [TRAIN_CFG['assigner'],
             dict(type='MaxIoUAssigner', pos_iou_thr=.5, neg_iou_thr=.4, min_pos_iou=0, ignore_iof_thr=-1)]


def targets_of(model, data):
    """Labels, weights and boxes that the head assigns in a forward pass, in the order of the anchors."""
    head, seen = model.bbox_head, []
    get_targets = head.get_targets

    def record(*args, **kwargs):
        seen.append(get_targets(*args, **kwargs))
        return seen[-1]

    head.get_targets = record
    try:
        model(**data, mode='loss')
    finally:
        del head.get_targets
    return [[own.clone() for own in value] for value in seen[0] if isinstance(value, (list, tuple))]


@pytest.mark.parametrize('assigner', ASSIGNERS)
@pytest.mark.parametrize('seed', range(3))
def test_subnets_are_assigned_the_same_anchors(assigner, seed):
    """The assignment looks at anchors and ground truth alone, not at what a subnet predicts."""
    torch.manual_seed(seed)
    config = retinanet(head=big_retina_head())
    config.train_cfg.assigner = copy.deepcopy(assigner)
    model = build(config).train()
    supernet = Supernet(model)
    data = model.data_preprocessor(batch((96, 128)), True)
    found, space, rng = [], supernet.space, random.Random(seed)
    for subnet in (space.max(), space.min(), *(space.sample(rng) for _ in range(3))):
        supernet.apply(subnet)
        found.append(targets_of(model, data))
    assert any((label < 3).any() for label in found[0][0])  # there are positives
    for other in found[1:]:
        for ours, theirs in zip(found[0], other, strict=True):
            assert all(torch.equal(x, y) for x, y in zip(ours, theirs, strict=True))
