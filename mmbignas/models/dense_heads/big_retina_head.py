"""RetinaNet's head, as a supernet or as one network."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.models.dense_heads import RetinaHead
from mmdet.models.losses import QualityFocalLoss
from mmdet.models.task_modules import ATSSAssigner
from mmdet.models.task_modules.prior_generators import anchor_inside_flags
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor
from mmdet.utils import reduce_mean
from torch import Tensor

from mmbignas.models.blocks import ConvTower
from mmbignas.models.layers import build_conv
from mmbignas.ops import shared_weights
from mmbignas.registry import MODELS
from mmbignas.utils.rules import check_keys

TOWER_ELEMENTS = ('depth', 'out_channel', 'kernel_size')


class LevelwiseAssigner:
    """Lets an assigner that needs the number of priors per level take the place of an anchor head's assigner.

    Args:
        assigner: :class:`~mmdet.models.task_modules.ATSSAssigner` or one with the same ``assign``.

    Attributes:
        num_level_priors: number of priors of each level in the next call.
    """

    def __init__(self, assigner: ATSSAssigner) -> None:
        self.assigner = assigner
        self.num_level_priors: list[int] = []

    def assign(self, pred_instances: Any, gt_instances: Any, gt_instances_ignore: Any = None) -> Any:
        """Assign as an anchor head expects it."""
        return self.assigner.assign(pred_instances, self.num_level_priors, gt_instances, gt_instances_ignore)


@dataclass(frozen=True)
class AssignedBatch:
    """The targets of a batch, and what they were made from.

    Args:
        sizes: anchors per level and shapes of the images.
        tensors: the annotations' boxes and labels; the same batch has the same objects.
        targets: what ``AnchorHead.get_targets`` made of them.
    """

    sizes: tuple
    tensors: list[Tensor]
    targets: tuple


@MODELS.register_module()
class BigRetinaHead(RetinaHead):
    """RetinaNet's head with towers of any depth, width and kernel size.

    The pyramid levels share a tower's convolutions; each has its own normalisations. The settings stand under
    ``cls_tower`` and, where the box tower is searched apart, ``reg_tower``. Beyond MMDetection's ``RetinaHead``
    it takes ``ATSSAssigner`` as assigner and ``QualityFocalLoss`` as classification loss (arXiv 1912.02424,
    2006.04388): the target of a positive is then the IoU of its predicted box.

    Args:
        num_classes: number of classes.
        in_channels: greatest input width.
        cls_tower: ``dict(depth=..., out_channel=..., kernel_size=...)``, each a list of one value or
            ``dict(space=..., sample_strategy=...)``.
        reg_tower: the same for the box tower; ``None`` lets it take the settings of ``cls_tower``.
        conv_cfg, norm_cfg: as in mmcv; see :class:`~mmbignas.models.BigResNet`.
        **kwargs: of :class:`~mmdet.models.RetinaHead`. ``loss_cls`` needs ``use_sigmoid=True`` written out.

    Raises:
        ConfigError: for a space that no subnet could be drawn from.
    """

    def __init__(self, num_classes: int, in_channels: int, cls_tower: Mapping[str, Any],
                 reg_tower: Mapping[str, Any] | None = None, conv_cfg: Mapping[str, Any] | None = None,
                 norm_cfg: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        for name, tower in dict(cls_tower=cls_tower, reg_tower=reg_tower or cls_tower).items():
            check_keys(tower, f'BigRetinaHead.{name}', TOWER_ELEMENTS, TOWER_ELEMENTS)
        self._tower_cfgs = (cls_tower, reg_tower)
        super().__init__(num_classes, in_channels, conv_cfg=conv_cfg, norm_cfg=norm_cfg, **kwargs)
        self._assigned: AssignedBatch | None = None
        assigner = getattr(self, 'assigner', None)  # there is none without a train_cfg
        if isinstance(assigner, ATSSAssigner):
            self.assigner = LevelwiseAssigner(assigner)

    def _init_layers(self) -> None:
        cls_cfg, reg_cfg = self._tower_cfgs
        common: dict[str, Any] = dict(num_levels=self.prior_generator.num_levels, conv_cfg=self.conv_cfg,
                                      norm_cfg=self.norm_cfg)
        self.cls_tower = ConvTower(self.in_channels, **cls_cfg, **common, key='BigRetinaHead.cls_tower')
        self.reg_tower = ConvTower(self.in_channels, **(reg_cfg or cls_cfg), **common, key='BigRetinaHead.reg_tower')
        if reg_cfg is None:
            self.cls_tower.lead(self.reg_tower)
        self.retina_cls = build_conv(
            self.cls_tower.out_channels, (self.num_base_priors * self.cls_out_channels,), (3,),
            dynamic=self.cls_tower.is_supernet, bias=True)
        self.retina_reg = build_conv(
            self.reg_tower.out_channels, (self.num_base_priors * self.bbox_coder.encode_size,), (3,),
            dynamic=self.reg_tower.is_supernet, bias=True)

    def forward(self, x: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Compute the raw outputs of all levels.

        Args:
            x: one tensor ``(N, C, H, W)`` per level, from fine to coarse.

        Returns:
            tuple: classification logits, ``(N, A * num_classes, H, W)`` per level, and box deltas,
            ``(N, A * 4, H, W)`` per level, with ``A`` anchors per location.
        """
        cls_feats, reg_feats = self.cls_tower(x), self.reg_tower(x)
        with shared_weights(self.retina_cls, self.retina_reg):
            return [self.retina_cls(feat) for feat in cls_feats], [self.retina_reg(feat) for feat in reg_feats]

    def get_targets(self, anchor_list: list[list[Tensor]], valid_flag_list: list[list[Tensor]],
                    batch_gt_instances: Sequence[Any], batch_img_metas: Sequence[dict],
                    batch_gt_instances_ignore: Sequence[Any] | None = None, **kwargs: Any) -> tuple:
        """Assign targets as ``AnchorHead`` does, once for all passes over the same batch.

        Targets follow from anchors and annotations alone, not from the subnet that is trained. The number of
        positives is averaged over all processes.
        """
        levels = [len(anchors) for anchors in anchor_list[0]]
        shapes = [(meta['img_shape'], meta.get('pad_shape')) for meta in batch_img_metas]
        tensors = [tensor for instances in batch_gt_instances for tensor in (instances.bboxes, instances.labels)]
        tensors += [ignored.bboxes for ignored in batch_gt_instances_ignore or () if ignored is not None]
        batch = self._assigned
        if batch is None or batch.sizes != (levels, shapes) or len(batch.tensors) != len(tensors) or any(
                known is not tensor for known, tensor in zip(batch.tensors, tensors)):
            self._num_level_anchors = levels
            targets = super().get_targets(anchor_list, valid_flag_list, batch_gt_instances, batch_img_metas,
                                          batch_gt_instances_ignore, **kwargs)
            self._assigned = batch = AssignedBatch((levels, shapes), tensors, targets)
        labels, label_weights, bbox_targets, bbox_weights, avg_factor = batch.targets
        avg_factor = reduce_mean(labels[0].new_tensor(avg_factor, dtype=torch.float)).clamp(min=1).item()
        return labels, label_weights, bbox_targets, bbox_weights, avg_factor

    def _get_targets_single(self, flat_anchors: Any, valid_flags: Tensor, gt_instances: Any, img_meta: dict,
                            *args: Any, **kwargs: Any) -> tuple:
        if isinstance(self.assigner, LevelwiseAssigner):
            inside = anchor_inside_flags(flat_anchors, valid_flags, img_meta['img_shape'][:2],
                                         self.train_cfg['allowed_border'])
            self.assigner.num_level_priors = [int(flags.sum()) for flags in inside.split(self._num_level_anchors)]
        return super()._get_targets_single(flat_anchors, valid_flags, gt_instances, img_meta, *args, **kwargs)

    def loss_by_feat_single(self, cls_score: Tensor, bbox_pred: Tensor, anchors: Tensor, labels: Tensor,
                            label_weights: Tensor, bbox_targets: Tensor, bbox_weights: Tensor,
                            avg_factor: float) -> tuple[Tensor, Tensor]:
        """The classification loss and the box loss of one level; arguments as for MMDetection's ``RetinaHead``.

        ``cls_score`` and ``bbox_pred`` are raw outputs, see :meth:`forward`. Anchors, box targets and their weights are
        of shape ``(N, H * W * A, 4)``, labels and their weights ``(N, H * W * A)``. ``avg_factor`` divides the sums.
        """
        if not isinstance(self.loss_cls, QualityFocalLoss):
            return super().loss_by_feat_single(cls_score, bbox_pred, anchors, labels, label_weights, bbox_targets,
                                               bbox_weights, avg_factor)
        labels = labels.reshape(-1)
        cls_score = cls_score.permute(0, 2, 3, 1).reshape(-1, self.cls_out_channels)
        positive = ((labels >= 0) & (labels < self.num_classes)).nonzero().squeeze(1)
        priors = get_box_tensor(anchors).reshape(-1, 4)[positive]
        deltas = bbox_pred.permute(0, 2, 3, 1).reshape(-1, 4)[positive]
        targets = bbox_targets.reshape(-1, 4)[positive]
        boxes = get_box_tensor(self.bbox_coder.decode(priors, deltas))
        target_boxes = targets if self.reg_decoded_bbox else get_box_tensor(self.bbox_coder.decode(priors, targets))
        quality = cls_score.new_zeros(labels.shape)
        quality[positive] = bbox_overlaps(boxes.detach(), target_boxes, is_aligned=True).to(quality.dtype)
        loss_cls = self.loss_cls(cls_score, (labels, quality), label_weights.reshape(-1), avg_factor=avg_factor)
        predictions = boxes if self.reg_decoded_bbox else deltas
        if len(positive) == 0:
            return loss_cls, deltas.sum()  # zero, with a zero gradient, also where a prediction is not finite
        weights = bbox_weights.reshape(-1, 4)[positive]
        return loss_cls, self.loss_bbox(predictions, targets, weights, avg_factor=avg_factor)
