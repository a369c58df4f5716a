"""Boxes are compared up to ties: any choice among equal scores is right, and a wrong choice is not."""
from __future__ import annotations

from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmbignas.errors import MismatchError
from mmbignas.export import DetectionNetwork, Network
from mmbignas.export.box_comparison import compare_boxes
from tests.export.detectors import SIZE, mmdet_config, mmdet_retinanet, trained


@torch.no_grad()
def barely_trained(**test_cfg: Any) -> nn.Module:
    """A detector whose scores are one of a few values, as after an epoch: hundreds of them are equal."""
    model = trained(MODELS.build(mmdet_config()))
    model.bbox_head.retina_cls.weight.zero_()
    bias = model.bbox_head.retina_cls.bias
    bias.copy_(torch.linspace(-1, 1, 4).repeat(len(bias) // 4))
    model.bbox_head.test_cfg.update(dict(score_thr=0.3, **test_cfg))
    return model


class OtherOrder(DetectionNetwork):
    """The same detector, which takes the last of equal scores where another takes the first.

    Attributes:
        limit: of the overlap, in place of that of the config.
        border: pixels by which images are taken for larger.
    """

    limit: float | None = None
    border = 0

    def forward(self, images: Tensor, image_sizes: Tensor) -> tuple[Tensor, ...]:
        """Suppress by hand, box by box, over all that MMDetection decodes, the last of equal ones first."""
        found = []
        for decoded in self.decoded(self.network(images), image_sizes + self.border, 0.):
            backwards = decoded.scores.flip(0).argsort(descending=True, stable=True)
            best, kept = self._best_of_levels(decoded[len(decoded) - 1 - backwards]), list[int]()
            for index in range(len(best)):
                if len(kept) < self.max_per_img and not any(
                        best.labels[index] == best.labels[other]
                        and overlap(best.bboxes[index], best.bboxes[other]) > (self.limit or self.iou_threshold)
                        for other in kept):
                    kept.append(index)
            found.append(best[kept])
        lacking = [self.max_per_img - len(own) for own in found]
        return (torch.stack([torch.cat([own.bboxes, torch.zeros(more, 4)]) for own, more in zip(found, lacking)]),
                torch.stack([torch.cat([own.scores, torch.zeros(more)]) for own, more in zip(found, lacking)]),
                torch.stack([torch.cat([own.labels, -torch.ones(more)]).long() for own, more in zip(found, lacking)]))

    def _best_of_levels(self, boxes: InstanceData) -> InstanceData:
        """At most ``nms_pre`` of each level, which the limit tells apart here."""
        chosen = [index for limit in boxes.limits.unique() for index in
                  (boxes.limits == limit).nonzero().flatten()[:self.nms_pre].tolist()]
        return boxes[sorted(chosen)]


def overlap(one: Tensor, other: Tensor) -> float:
    sides = (torch.minimum(one[2:], other[2:]) - torch.maximum(one[:2], other[:2])).clamp(min=0)
    shared = float(sides.prod())
    areas = [float((box[2:] - box[:2]).prod()) for box in (one, other)]
    return shared / max(sum(areas) - shared, 1e-6)


def compared(model: nn.Module, **changes: Any) -> Any:
    other = OtherOrder(Network(model, SIZE))
    for name, value in changes.items():
        setattr(other, name, value)
    return compare_boxes(DetectionNetwork(Network(model, SIZE)), other, [1])


@torch.no_grad()
@pytest.mark.parametrize('test_cfg', [dict(), dict(max_per_img=5), dict(nms_pre=300, max_per_img=60)])
def test_other_choices_among_equal_scores_are_right(test_cfg: dict[str, Any]) -> None:
    model = barely_trained(**test_cfg)
    check = compared(model)
    assert min(check.found) >= 5
    assert max(check.max_box_diff, check.max_score_diff) < 1e-3
    network = Network(model, SIZE)
    images, sizes = network.random_images(1), torch.tensor([SIZE])
    [right] = DetectionNetwork(network).reference(network(images), sizes)
    boxes = OtherOrder(network)(images, sizes)[0][0]
    # Of MMDetection's boxes, most are not there.
    assert (torch.cdist(right.bboxes, boxes).amin(1) > 1).double().mean() > 0.3


def test_the_same_boxes_are_right() -> None:
    network = DetectionNetwork(Network(mmdet_retinanet(), SIZE))
    check = compare_boxes(network, lambda *inputs: network(*inputs)[:3], [1, 2])
    assert check.found == check.expected
    assert min(check.found) > 10
    assert max(check.max_box_diff, check.max_score_diff) < 1e-3


@pytest.mark.parametrize('make', [barely_trained, mmdet_retinanet])
@pytest.mark.parametrize('change', [dict(limit=0.05), dict(limit=0.9), dict(border=8), dict(max_per_img=3),
                                    dict(iou_threshold=0.1)])
def test_wrong_boxes_are_not(make: Any, change: dict[str, Any]) -> None:
    """Too much is suppressed, or too little, boxes end elsewhere, or there are too few."""
    with pytest.raises(MismatchError, match=r'finds other boxes than MMDetection, which finds \d+: \d+ are missing'):
        compared(make(), **change)
