"""What a model's forward pass takes on one image: a detector may ask for a data sample and for proposals too.

What a two-stage detector costs depends on how many proposals it looks at. So their number is stated: that of
``test_cfg.rpn.max_per_img``, all of which an image may have, or :data:`PROPOSALS` for a detector that has no RPN.
"""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmbignas.utils.models import tensors_in

PROPOSALS = 1000
SIZES = (0.1, 0.3, 0.6, 0.9)  # of the proposals, as a share of the image, so that all levels of a pyramid are met


def number_of_proposals(model: nn.Module) -> int:
    """How many proposals a two-stage detector is fed with.

    Args:
        model: the detector.
    """
    rpn = (getattr(model, 'test_cfg', None) or {}).get('rpn') or {}
    return int(rpn.get('max_per_img', PROPOSALS))


@contextmanager
def forward_inputs(model: nn.Module, image: Tensor) -> Iterator[dict[str, Any]]:
    """Within the context, a model's ``forward`` computes an image with these further arguments.

    The RPN of a two-stage detector is computed, and hands on as many proposals as are stated.

    Args:
        model: the model.
        image: a batch of one image, also on the meta device.

    Yields:
        dict: ``mode='tensor'`` for a model of MMEngine, and ``data_samples`` for a detector.
    """
    if not isinstance(model, BaseModel):
        yield {}
        return
    if not any(base.__module__.startswith('mmdet.') for base in type(model).__mro__):
        yield dict(mode='tensor')
        return
    rpn: Any = getattr(model, 'rpn_head', None)
    two_stage = getattr(model, 'roi_head', None) is not None
    sample = _data_sample(image, number_of_proposals(model) if two_stage else None)
    before = {} if rpn is None else {name: vars(rpn).get(name) for name in ('predict', 'predict_by_feat')}
    try:
        if rpn is not None and two_stage:
            rpn.predict_by_feat = lambda *args, **kwargs: [sample.proposals]
            if type(rpn).__name__ != 'CascadeRPNHead':  # whose features depend on its own boxes
                rpn.predict = partial(_predict, rpn, sample.proposals)
        yield dict(mode='tensor', data_samples=[sample])
    finally:
        for name, value in before.items():
            vars(rpn).pop(name, None)
            if value is not None:
                setattr(rpn, name, value)


def _predict(rpn: Any, proposals: Any, features: Any, *args: Any, **kwargs: Any) -> list[Any]:
    outputs = tensors_in(rpn(features))
    # An analysis passes over what has no effect, so the boxes are made to depend on the outputs: by zero.
    zero = sum((output.sum() > 0).to(proposals.bboxes.dtype) * 0 for output in outputs)
    return [type(proposals)(bboxes=proposals.bboxes + zero, scores=proposals.scores, labels=proposals.labels)]


def _data_sample(image: Tensor, proposals: int | None) -> Any:
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    size = tuple(image.shape[-2:])
    sample = DetDataSample(metainfo=dict(
        img_id=0, img_path='', img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size,
        scale_factor=(1.0, 1.0), flip=False, flip_direction=None))
    if proposals is not None:
        share = torch.tensor(SIZES).repeat(-(-proposals // len(SIZES)))[:proposals, None]
        end = share * torch.tensor([size[1], size[0]])
        boxes = torch.cat([torch.zeros_like(end), end], 1).to(image.device)
        sample.proposals = InstanceData(bboxes=boxes, scores=boxes.new_ones(proposals),
                                        labels=boxes.new_zeros(proposals, dtype=torch.long))
    return sample
