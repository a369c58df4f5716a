"""From raw outputs to boxes, as one graph of fixed shapes."""
from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch
from mmcv.ops import nms
from mmdet.models import SingleStageDetector
from mmdet.models.dense_heads import AnchorHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.structures.bbox import get_box_tensor
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn import functional as F

from mmbignas.export.network import Network
from mmbignas.utils.rules import check_options, integer, must_be, number

BOOL = 9  # of onnx.TensorProto
BOX_OUTPUTS = ['boxes', 'scores', 'labels']
DECODING = ('predict_by_feat', '_predict_by_feat_single', '_bbox_post_process')
TEST_DEFAULTS = dict(nms_pre=None, max_per_img=None, score_thr=0, min_bbox_size=-1)
TEST_RULES = dict(nms_pre=integer(1), max_per_img=integer(1), score_thr=number(0, 1))
NMS_KEYS = ('type', 'iou_threshold', 'class_agnostic', 'split_thr')  # the last one only says how it is computed


@torch.library.custom_op('mmbignas::nms_keep', mutates_args=())
def nms_keep(boxes: Tensor, scores: Tensor, iou_threshold: float, max_keep: int) -> Tensor:
    """Which boxes stay.

    Args:
        boxes: ``(N, M, 4)``, ``[x1, y1, x2, y2]`` with ``x1 <= x2`` and ``y1 <= y2``.
        scores: ``(N, M)``; those of 0 and less are not boxes.
        iou_threshold: a box that overlaps a better one by more is dropped.
        max_keep: at most this many boxes per image stay, the best ones.

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


class DetectionNetwork(nn.Module):
    """A single-stage anchor detector with decoding and NMS: what MMDetection predicts, padded to a fixed number.

    Where MMDetection filters, here scores become 0, so that every shape but the batch size is known beforehand. As
    there, boxes end at the border of each image within its padding; they are not scaled back to the size that the image
    had before, and ``test_cfg.min_bbox_size`` is in pixels of the input.

    Args:
        network: the way to the raw outputs.

    Raises:
        ConfigError: for a model that finds its boxes in another way.

    Attributes:
        input_names: ``images`` and ``image_sizes``.
        output_names: ``boxes``, ``scores`` and ``labels``, then the raw outputs.
    """

    input_names = [*Network.input_names, 'image_sizes']

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.output_names = BOX_OUTPUTS + network.output_names
        cfg = dict(TEST_DEFAULTS, **(_anchor_head(network).test_cfg or {}))
        check_options('test_cfg', cfg, TEST_RULES)
        self.nms_pre, self.max_per_img = cfg['nms_pre'], cfg['max_per_img']
        self.score_thr, self.min_size = cfg['score_thr'], cfg['min_bbox_size']
        self.iou_threshold, self.class_agnostic = _nms_settings(cfg)

    @property
    def head(self) -> Any:
        """The model's head."""
        return self.network.model.bbox_head

    def forward(self, images: Tensor, image_sizes: Tensor) -> tuple[Tensor, ...]:
        """Detect.

        Args:
            images: ``(N, C, H, W)``, normalised, then padded on the right and at the bottom.
            image_sizes: ``(N, 2)``, int64, height and width of each image in pixels, without its padding.

        Returns:
            tuple: with K = ``test_cfg.max_per_img``, boxes ``(N, K, 4)`` in pixels of the images, scores ``(N, K)`` in
            descending order and labels ``(N, K)``; where there are fewer boxes, zeros, 0 and -1. Then the raw outputs.
        """
        raw = self.network(images)
        levels = len(raw) // 2
        boxes, scores, labels = self._candidates(raw[:levels], raw[levels:], image_sizes)
        keep = nms_keep(self._apart(boxes, scores, labels), scores, self.iou_threshold, self.max_per_img)
        count = min(self.max_per_img, scores.shape[1])
        scores, best = torch.where(keep, scores, 0.).topk(count)
        found = scores > 0
        boxes = _take(boxes, best) * found[..., None]
        labels = torch.where(found, labels.gather(1, best), -1)
        lacking = self.max_per_img - count
        return (F.pad(boxes, (0, 0, 0, lacking)), F.pad(scores, (0, lacking)), F.pad(labels, (0, lacking), value=-1),
                *raw)

    def _candidates(self, cls_scores: Sequence[Tensor], bbox_preds: Sequence[Tensor],
                    image_sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The best anchors and classes of each level: boxes (N, M, 4), scores (N, M) or 0, and labels (N, M)."""
        sizes = [cls_score.shape[-2:] for cls_score in cls_scores]
        priors = self.head.prior_generator.grid_priors(sizes, cls_scores[0].dtype, cls_scores[0].device)
        parts = []
        for cls_score, bbox_pred, level_priors in zip(cls_scores, bbox_preds, priors):
            flat = cls_score.permute(0, 2, 3, 1).flatten(1).sigmoid()
            scores, index = flat.topk(min(self.nms_pre, flat.shape[1]))
            anchors = index // self.head.cls_out_channels
            deltas = bbox_pred.permute(0, 2, 3, 1).reshape(-1, len(level_priors), 4)
            parts.append((get_box_tensor(level_priors)[anchors], _take(deltas, anchors), scores,
                          index % self.head.cls_out_channels))
        anchor_boxes, deltas, scores, labels = (torch.cat(part, 1) for part in zip(*parts))
        decoded = self.head.bbox_coder.decode(anchor_boxes.reshape(-1, 4), deltas.reshape(-1, 4),
                                              max_shape=self.network.image_size)
        boxes = get_box_tensor(decoded).reshape(-1, scores.shape[1], 4)
        if getattr(self.head.bbox_coder, 'clip_border', True):  # at the input's border they end already
            boxes = torch.minimum(boxes, image_sizes.flip(1).repeat(1, 2)[:, None].to(boxes))
        valid = scores > self.score_thr
        if self.min_size >= 0:
            valid = valid & (boxes[..., 2:] - boxes[..., :2] > self.min_size).all(-1)
        return boxes, torch.where(valid, scores, 0.), labels

    def _apart(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
        """The boxes, those of each class moved away from the other classes', as ``mmcv.ops.batched_nms`` does it."""
        boxes = torch.where(scores[..., None] > 0, boxes, 0.)
        if self.class_agnostic:
            return boxes
        offsets = labels.to(boxes) * (boxes.amax((1, 2))[:, None] + 1)
        return boxes + offsets[..., None]

    def full_sizes(self, count: int) -> Tensor:
        """The ``image_sizes`` of a batch of ``count`` images that fill the input."""
        return torch.tensor([self.network.image_size] * count)

    def random_sizes(self, count: int) -> Tensor:
        """``image_sizes`` of images with padding, at most half of each side; the same ones for the same count."""
        generator = torch.Generator().manual_seed(count)
        return torch.stack([torch.randint((side + 1) // 2, side + 1, (count, ), generator=generator)
                            for side in self.network.image_size], 1)

    def reference(self, raw: Sequence[Tensor], image_sizes: Tensor) -> list[InstanceData]:
        """What MMDetection itself makes of raw outputs, one result per image."""
        levels = len(raw) // 2
        metas = [dict(img_shape=tuple(size)) for size in image_sizes.tolist()]
        return self.head.predict_by_feat(list(raw[:levels]), list(raw[levels:]), batch_img_metas=metas)


    def decoded(self, raw: Sequence[Tensor], image_sizes: Tensor, tie: float) -> list[InstanceData]:
        """What MMDetection itself decodes from raw outputs before boxes suppress each other, one result per image.

        Args:
            raw: raw outputs.
            image_sizes: ``(N, 2)``, height and width of each image.
            tie: scores nearer than this are taken for equal.

        Returns:
            list: with ``bboxes``, ``scores``, ``labels`` and ``limits``, the score of the ``test_cfg.nms_pre``-th best
            of the level. No box is below its limit, but several may be as good as the last that is needed.
        """
        levels = len(raw) // 2
        sizes = [level.shape[-2:] for level in raw[:levels]]
        priors = self.head.prior_generator.grid_priors(sizes, raw[0].dtype, raw[0].device)
        cfg, results = ConfigDict(self.head.test_cfg, nms_pre=sys.maxsize), []
        for index, size in enumerate(image_sizes.tolist()):
            parts = []
            for cls_score, bbox_pred, level_priors in zip(raw[:levels], raw[levels:], priors):
                part = self.head._predict_by_feat_single(
                    [cls_score[index]], [bbox_pred[index]], [None], [level_priors], dict(img_shape=tuple(size)), cfg,
                    with_nms=False)
                scores = cls_score[index].sigmoid().flatten()
                limit = float(scores.topk(self.nms_pre).values[-1]) if len(scores) > self.nms_pre else 0.
                part.bboxes, part.limits = get_box_tensor(part.bboxes), torch.full_like(part.scores, limit)
                parts.append(part[part.scores >= limit - tie])
            results.append(InstanceData.cat(parts))
        return results


def _take(values: Tensor, index: Tensor) -> Tensor:
    """Rows of (N, M, 4) by an index (N, K)."""
    return values.gather(1, index[..., None].expand(-1, -1, 4))


def _anchor_head(network: Network) -> Any:
    model = network.model
    head = getattr(model, 'bbox_head', None)
    if not isinstance(model, SingleStageDetector) or not isinstance(head, AnchorHead) or any(
            getattr(type(head), name) is not getattr(BaseDenseHead, name) for name in DECODING) or (
                'bbox_pred_0' not in network.output_names):
        found = type(model).__name__ + (f' with {type(head).__name__}' if head is not None else '')
        raise must_be('model', "a single-stage detector with one of MMDetection's anchor heads, such as RetinaHead, "
                      'for boxes (others can be exported with raw outputs)', found)
    if not head.use_sigmoid_cls or getattr(head.loss_cls, 'custom_cls_channels', False):
        raise must_be('bbox_head.loss_cls', 'a loss of independent classes with use_sigmoid=True, with boxes',
                      type(head.loss_cls).__name__)
    return head


def _nms_settings(cfg: Any) -> tuple[float, bool]:
    """IoU threshold and whether boxes of different classes compete."""
    own = dict(cfg.get('nms') or {})
    if own.get('type', 'nms') != 'nms' or 'iou_threshold' not in own or not set(own) <= set(NMS_KEYS):
        raise must_be('test_cfg.nms', "dict(type='nms', iou_threshold=...), optionally with class_agnostic, with boxes",
                      own)
    return float(own['iou_threshold']), bool(own.get('class_agnostic', False))


def _to_onnx(boxes: Any, scores: Any, iou_threshold: float, max_keep: int) -> Any:
    """The same with ONNX's standard operators."""
    op: Any = import_module('onnxscript').opset18  # an optional package
    chosen = op.NonMaxSuppression(boxes, op.Unsqueeze(scores, [1]), max_keep, iou_threshold, 0.)
    places = op.Gather(chosen, [0, 2], axis=1)  # image and box, without the class, of which there is one
    ones = op.Expand(1., op.Slice(op.Shape(chosen), [0], [1]))
    return op.Cast(op.ScatterND(op.Mul(scores, 0.), places, ones), to=BOOL)

ONNX_TRANSLATIONS = {torch.ops.mmbignas.nms_keep.default: _to_onnx}
