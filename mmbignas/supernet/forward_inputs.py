"""What a model's forward pass takes on images: a detector may ask for a data sample and for proposals too.

What a two-stage detector costs depends on how many proposals it looks at, and what CondInst or YOLACT cost on how many
objects they draw masks of. So these numbers are stated: the most that an image may have by ``test_cfg``, i.e.
``rpn.max_per_img`` (:data:`PROPOSALS` for a detector without RPN) and ``max_per_img``.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmbignas.utils.compiled_operations import compiled_operations_on_shapes
from mmbignas.utils.models import tensors_in

PROPOSALS, OBJECTS = 1000, 100
SIZES = (0.1, 0.3, 0.6, 0.9)  # of the proposals, as a share of the image, so that all levels of a pyramid are met


def number_of_proposals(model: nn.Module) -> int:
    """How many proposals a two-stage detector is fed with.

    Args:
        model: the detector.
    """
    rpn = (getattr(model, 'test_cfg', None) or {}).get('rpn') or {}
    return int(rpn.get('max_per_img', PROPOSALS))


@contextmanager
def forward_inputs(model: nn.Module, images: Tensor, proposals: int | None = None) -> Iterator[dict[str, Any]]:
    """Within the context, a model's ``forward`` computes images with these further arguments.

    The RPN of a two-stage detector is computed, and hands on as many proposals as are stated.

    Args:
        model: the model.
        images: of shape ``(N, C, H, W)``, also on the meta device.
        proposals: of a two-stage detector, per image; ``None`` for :func:`number_of_proposals`.

    Yields:
        dict: ``mode='tensor'`` for a model of MMEngine, and ``data_samples``, one per image, for a detector.
    """
    if not isinstance(model, BaseModel):
        yield {}
        return
    if not any(base.__module__.startswith('mmdet.') for base in type(model).__mro__):
        yield dict(mode='tensor')
        return
    rpn: Any = getattr(model, 'rpn_head', None)
    two_stage = getattr(model, 'roi_head', None) is not None
    number = (proposals or number_of_proposals(model)) if two_stage else None
    samples = [_data_sample(images, number) for _ in range(images.shape[0])]
    head: Any = getattr(model, 'bbox_head', None)
    with ExitStack() as stack:
        if images.is_meta:
            stack.enter_context(compiled_operations_on_shapes())
        if rpn is not None and two_stage:
            stated = [sample.proposals for sample in samples]
            stack.enter_context(_replaced(rpn, 'predict_by_feat', lambda *args, **kwargs: stated))
            if type(rpn).__name__ != 'CascadeRPNHead':  # whose features depend on its own boxes
                stack.enter_context(_replaced(rpn, 'predict', partial(_predict, rpn, stated)))
        if hasattr(head, 'get_positive_infos'):
            stack.enter_context(_replaced(head, 'loss', lambda *args, **kwargs: {}))
            stack.enter_context(_replaced(head, 'get_positive_infos', partial(_objects, model, images)))
        yield dict(mode='tensor', data_samples=samples)


@contextmanager
def _replaced(module: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Within the context, a module has another method."""
    before = vars(module).get(name)
    setattr(module, name, function)
    try:
        yield
    finally:
        delattr(module, name)
        if before is not None:
            setattr(module, name, before)


def _objects(model: Any, images: Tensor) -> list[Any]:
    """What a mask head is told of the objects in each image: weights of its last layers, and where they are."""
    from mmengine.structures import InstanceData

    number, head = int((model.test_cfg or {}).get('max_per_img', OBJECTS)), model.bbox_head
    objects = InstanceData(points=images.new_ones(number, 2), strides=images.new_ones(number))
    for name, width in (('param_preds', 'num_params'), ('coeffs', 'num_protos')):
        if hasattr(head, width):
            setattr(objects, name, images.new_ones(number, getattr(head, width)))
    return [objects for _ in range(images.shape[0])]


def _predict(rpn: Any, proposals: list[Any], features: Any, *args: Any, **kwargs: Any) -> list[Any]:
    outputs = tensors_in(rpn(features))
    # An analysis passes over what has no effect, so the boxes are made to depend on the outputs: by zero.
    zero = sum((output.sum() > 0).to(proposals[0].bboxes.dtype) * 0 for output in outputs)
    return [type(own)(bboxes=own.bboxes + zero, scores=own.scores, labels=own.labels) for own in proposals]


def _data_sample(images: Tensor, proposals: int | None) -> Any:
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    size = tuple(images.shape[-2:])
    sample = DetDataSample(metainfo=dict(
        img_id=0, img_path='', img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size,
        scale_factor=(1.0, 1.0), flip=False, flip_direction=None))
    if proposals is not None:
        share = torch.tensor(SIZES).repeat(-(-proposals // len(SIZES)))[:proposals, None]
        end = share * torch.tensor([size[1], size[0]])
        boxes = torch.cat([torch.zeros_like(end), end], 1).to(images.device)
        sample.proposals = InstanceData(bboxes=boxes, scores=boxes.new_ones(proposals),
                                        labels=boxes.new_zeros(proposals, dtype=torch.long))
    return sample
