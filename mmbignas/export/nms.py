"""Non-maximum suppression as one operation, for torch and for ONNX."""
from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from mmcv.ops import nms
from torch import Tensor

BOOL = 9  # of onnx.TensorProto


@torch.library.custom_op('mmbignas::nms_keep', mutates_args=())
def nms_keep(boxes: Tensor, scores: Tensor, iou_threshold: float, max_keep: int) -> Tensor:
    """Which boxes stay.

    Args:
        boxes: ``(N, M, 4)``, ``[x1, y1, x2, y2]`` with ``x1 <= x2`` and ``y1 <= y2``.
        scores: ``(N, M)``; those of 0 and less are not boxes.
        iou_threshold: a box that overlaps a better one by more is dropped.
        max_keep: at most so many, the best, stay of an image.

    Returns:
        Tensor: ``(N, M)``, bool.
    """
    keep = torch.zeros_like(scores, dtype=torch.bool)
    for mask, of_image, values in zip(keep, boxes, scores):
        candidates = values.gt(0).nonzero().flatten()
        if len(candidates):
            _, kept = nms(of_image[candidates], values[candidates], iou_threshold)
            mask[candidates[kept[:max_keep]]] = True
    return keep


@nms_keep.register_fake
def _shape(boxes: Tensor, scores: Tensor, iou_threshold: float, max_keep: int) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


def _to_onnx(boxes: Any, scores: Any, iou_threshold: float, max_keep: int) -> Any:
    """The same with ONNX's standard operators."""
    op: Any = import_module('onnxscript').opset18  # an optional package
    chosen = op.NonMaxSuppression(boxes, op.Unsqueeze(scores, [1]), max_keep, iou_threshold, 0.)
    places = op.Gather(chosen, [0, 2], axis=1)  # image and box, without the class, of which there is one
    ones = op.Expand(1., op.Slice(op.Shape(chosen), [0], [1]))
    return op.Cast(op.ScatterND(op.Mul(scores, 0.), places, ones), to=BOOL)

ONNX_TRANSLATIONS = {torch.ops.mmbignas.nms_keep.default: _to_onnx}
