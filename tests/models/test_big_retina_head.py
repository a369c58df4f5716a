"""BigRetinaHead: against MMDetection's heads, and its losses against ones written out in float64."""
from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from mmdet.models.dense_heads import ATSSHead, RetinaHead, RetinaSepBNHead
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmbignas import ConfigError
from mmbignas.models import BigRetinaHead
from mmbignas.ops import DynamicConv2d
from mmbignas.space import ModuleSpace
from tests.models.same_network import relu_features, tensors
from tests.small_models import (
    NUM_CLASSES,
    TRAIN_CFG,
    batch,
    big_retina_head,
    build,
    element,
    retinanet,
    samples,
    scramble,
    tower,
)

WIDTH, LEVELS, DEPTH = 8, 5, 2
FIXED = dict(depth=[DEPTH], out_channel=[16], kernel_size=[3])
ANCHORS = dict(type='AnchorGenerator', ratios=[1.0], scales=[6, 8], strides=[8, 16, 32, 64, 128])
MAX_IOU = dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0, ignore_iof_thr=-1)
FOCAL = dict(
    loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
    loss_bbox=dict(type='L1Loss', loss_weight=1.0))
BOXES = [[[4., 6., 70., 50.], [20., 8., 62., 60.], [90., 70., 120., 126.]], [[10., 10., 54., 110.]]]
SIZE = (128, 128)


def train_cfg(assigner: dict, **kwargs: Any) -> ConfigDict:
    return ConfigDict({**TRAIN_CFG, 'assigner': assigner, **kwargs})


def outputs(anchors: int = 2, std: float = 1.0) -> tuple[list[Tensor], list[Tensor]]:
    """Logits and deltas of two images of 128 x 128 that need a gradient."""
    sizes = [16, 8, 4, 2, 1]
    return ([(torch.randn(2, anchors * NUM_CLASSES, size, size) * std).requires_grad_() for size in sizes],
            [(torch.randn(2, anchors * 4, size, size) * 0.3 * std).requires_grad_() for size in sizes])


def truth(boxes: list = BOXES, shapes: list[tuple[int, int]] | None = None,
          ignored: bool = False) -> tuple[list[InstanceData], list[dict], list[InstanceData] | None]:
    """Boxes, metadata, and ignored boxes of two images."""
    data = samples(boxes, size=SIZE)
    metas = [{**sample.metainfo, 'img_shape': shape, 'pad_shape': shape}
             for sample, shape in zip(data, shapes or [SIZE] * 2)]
    regions = [InstanceData(bboxes=torch.tensor([[60., 60., 128., 128.]])) for _ in data] if ignored else None
    return [sample.gt_instances for sample in data], metas, regions


# -- forward ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('training', [True, False])
def test_equals_retina_sep_bn_head(training: bool) -> None:
    config: dict[str, Any] = dict(anchor_generator=ANCHORS, norm_cfg=dict(type='BN'), **FOCAL)
    ours = scramble(BigRetinaHead(NUM_CLASSES, WIDTH, FIXED, **config))
    theirs = RetinaSepBNHead(NUM_CLASSES, LEVELS, WIDTH, stacked_convs=DEPTH, feat_channels=16, **config)
    for tower_name, convs in (('cls_tower', theirs.cls_convs), ('reg_tower', theirs.reg_convs)):
        for block in range(DEPTH):
            layer = getattr(ours, tower_name)[block]
            for level in range(LEVELS):
                convs[level][block].conv.load_state_dict(layer.conv.state_dict(), strict=True)
                convs[level][block].bn.load_state_dict(layer.bns[level].state_dict(), strict=True)
    theirs.retina_cls.load_state_dict(ours.retina_cls.state_dict())
    theirs.retina_reg.load_state_dict(ours.retina_reg.state_dict())
    feats = relu_features([WIDTH] * LEVELS)
    mine, other = tensors(ours.train(training)(feats)), tensors(theirs.train(training)(feats))
    assert len(mine) == len(other) == 2 * LEVELS
    assert all(torch.equal(a, b) for a, b in zip(mine, other))


def test_without_norm_it_equals_retina_head() -> None:
    ours = scramble(BigRetinaHead(NUM_CLASSES, WIDTH, FIXED, anchor_generator=ANCHORS, **FOCAL))
    theirs = RetinaHead(NUM_CLASSES, WIDTH, stacked_convs=DEPTH, feat_channels=16, anchor_generator=ANCHORS, **FOCAL)
    state = {}
    for name, value in ours.state_dict().items():
        kind, _, rest = name.partition('_tower.')
        state[f'{kind}_convs.{rest}' if rest else name] = value
    theirs.load_state_dict(state, strict=True)
    feats = relu_features([WIDTH] * LEVELS)
    assert all(torch.equal(a, b) for a, b in zip(tensors(ours(feats)), tensors(theirs(feats)), strict=True))


def test_one_conv_for_all_levels_one_norm_a_level() -> None:
    head = MODELS.build(big_retina_head())
    for layer in (*head.cls_tower, *head.reg_tower):
        assert isinstance(layer.conv, DynamicConv2d)
        assert layer.conv.bias is None
        assert len(layer.bns) == LEVELS
    assert len(head.cls_tower) == len(head.reg_tower) == 3
    with pytest.raises(ValueError):
        head(relu_features([24] * 4))


def test_features_are_left_as_they_are() -> None:
    head = MODELS.build(big_retina_head(norm_cfg=None))
    feats = [feat - 0.5 for feat in relu_features([24] * LEVELS)]
    before = [feat.clone() for feat in feats]
    head(feats)
    assert all(torch.equal(feat, old) for feat, old in zip(feats, before))


def test_tied_towers_have_one_space_and_untied_ones_two() -> None:
    tied, untied = (MODELS.build(big_retina_head(reg_tower=reg)) for reg in (None, tower(depth=[4])))
    assert isinstance(tied.cls_tower.search_space, ModuleSpace)
    assert tied.reg_tower.search_space is None
    assert [len(untied.cls_tower), len(untied.reg_tower)] == [3, 4]
    tied.cls_tower.apply_subnet(dict(depth=(2, ), out_channel=(16, ), kernel_size=(3, )))
    for tower_of in (tied.cls_tower, tied.reg_tower):
        assert [layer.is_active for layer in tower_of] == [True, True, False]
        assert [layer.conv.active_out_channels for layer in tower_of] == [16, 16, 24]
    untied.cls_tower.apply_subnet(dict(depth=(1, ), out_channel=(8, ), kernel_size=(3, )))
    assert [layer.conv.active_out_channels for layer in untied.reg_tower] == [24] * 4


def test_initialisation() -> None:
    head = build(big_retina_head(conv_cfg=dict(type='mmbignas.DynamicConv2d', kernel_transform=True),
                                 cls_tower=tower(out_channel=[64], kernel_size=element([3], [5], 2))))
    torch.testing.assert_close(head.retina_cls.bias.sigmoid(), torch.full_like(head.retina_cls.bias, 0.01))
    assert not head.retina_reg.bias.any()
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.std().item() == pytest.approx(0.01, rel=0.1)
            for matrix in module.transforms.values():
                assert torch.equal(matrix, torch.eye(9))
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert not module.bias.any()
    assert list(head.cls_tower[0].conv.transforms) == ['5to3']


# -- losses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('ignored', [False, True])
@pytest.mark.parametrize('decoded', [False, True])
@pytest.mark.parametrize('boxes', [BOXES, [BOXES[0], []], [[], []]], ids=['boxes', 'one empty', 'none'])
def test_focal_loss_and_max_iou_are_mmdets(boxes: list, decoded: bool, ignored: bool) -> None:
    config: dict[str, Any] = dict(
        anchor_generator=ANCHORS, train_cfg=train_cfg(dict(MAX_IOU, ignore_iof_thr=0.5)), reg_decoded_bbox=decoded,
        **FOCAL)
    if decoded:
        config['loss_bbox'] = dict(type='GIoULoss')
    ours = BigRetinaHead(NUM_CLASSES, WIDTH, FIXED, **config)
    theirs = RetinaHead(NUM_CLASSES, WIDTH, **config)
    results = []
    for head in (ours, theirs):
        torch.manual_seed(0)
        cls_scores, bbox_preds = outputs()
        losses = head.loss_by_feat(cls_scores, bbox_preds, *truth(boxes, ignored=ignored))
        sum(tensors(losses)).backward()
        results.append((tensors(losses), [out.grad for out in (*cls_scores, *bbox_preds)]))
    (losses, gradients), (expected, expected_gradients) = results
    assert len(losses) == 2 * LEVELS
    assert all(torch.equal(a, b) for a, b in zip(losses, expected))
    assert all(torch.equal(a, b) for a, b in zip(gradients, expected_gradients))


@pytest.mark.filterwarnings('ignore:DeprecationWarning. `num_anchors`:UserWarning')
@pytest.mark.parametrize('border', [-1, 0, 40])
@pytest.mark.parametrize(('decoded', 'pos_weight'), [(True, -1), (False, 3.0)])
def test_atss_targets_are_those_of_atss_head(decoded: bool, pos_weight: float, border: int) -> None:
    config: dict[str, Any] = dict(
        anchor_generator=ANCHORS, reg_decoded_bbox=decoded,
        train_cfg=train_cfg(dict(type='ATSSAssigner', topk=9), pos_weight=pos_weight, allowed_border=border))
    ours = BigRetinaHead(NUM_CLASSES, WIDTH, FIXED, **FOCAL, **config)
    theirs = ATSSHead(NUM_CLASSES, WIDTH, norm_cfg=None, bbox_coder=dict(type='DeltaXYWHBBoxCoder'), **FOCAL, **config)
    # the second image is smaller than the batch: its anchors beyond the border must not be counted
    boxes, metas, ignored = truth(shapes=[(128, 128), (112, 96)], ignored=True)
    sizes = [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]
    targets = ours.get_targets(*ours.get_anchors(sizes, metas, 'cpu'), boxes, metas, ignored)
    expected = theirs.get_targets(*theirs.get_anchors(sizes, metas, 'cpu'), boxes, metas, ignored)[1:]
    assert sum((labels < NUM_CLASSES).sum() for labels in targets[0]) > 3
    for mine, other in zip(targets[:4], expected[:4], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, other, strict=True))
    assert targets[4] == expected[4]


def test_targets_are_assigned_once_for_all_passes_over_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """And anew for other boxes, other ignored regions or images of another size."""
    head = MODELS.build(big_retina_head(train_cfg=train_cfg(dict(MAX_IOU, ignore_iof_thr=0.5), allowed_border=0)))
    kind, calls = type(head.assigner), []
    assign = kind.assign
    monkeypatch.setattr(kind, 'assign', lambda *args, **kwargs: calls.append(0) or assign(*args, **kwargs))
    cls_scores, bbox_preds = outputs()
    boxes, metas, ignored = truth(ignored=True)
    smaller = [{**meta, 'img_shape': (96, 96)} for meta in metas]
    same = copy.deepcopy(boxes)  # other annotations with the same numbers
    for fresh, instances, of_images, regions in (
            (True, boxes, metas, None), (False, boxes, metas, None), (True, boxes, metas, ignored),
            (False, boxes, metas, ignored), (True, boxes, smaller, ignored), (True, same, smaller, ignored),
            (True, boxes, metas, None)):
        calls.clear()
        losses = head.loss_by_feat(cls_scores, bbox_preds, instances, of_images, regions)
        assert len(calls) == (2 if fresh else 0)
        other = MODELS.build(big_retina_head(train_cfg=head.train_cfg))
        expected = other.loss_by_feat(cls_scores, bbox_preds, instances, of_images, regions)
        assert all(torch.equal(a, b) for a, b in zip(tensors(losses), tensors(expected), strict=True))


def decode(anchor: Tensor, delta: Tensor) -> list[float]:
    """A box from its delta, as plain numbers."""
    x1, y1, x2, y2 = anchor.tolist()
    dx, dy, dw, dh = delta.tolist()
    limit = abs(math.log(16 / 1000))
    width, height = (x2 - x1) * math.exp(min(max(dw, -limit), limit)), (y2 - y1) * math.exp(min(max(dh, -limit), limit))
    x, y = (x1 + x2) / 2 + dx * (x2 - x1), (y1 + y2) / 2 + dy * (y2 - y1)
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def iou_and_giou(a: list[float], b: list[float]) -> tuple[float, float]:
    def area(box: list[float]) -> float:
        return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)

    common = area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])
    hull = area([min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])])
    union = area(a) + area(b) - common
    return common / union, common / union - (hull - union) / hull


def written_out_losses(head: BigRetinaHead, cls_scores: list[Tensor], bbox_preds: list[Tensor], boxes: list,
                       metas: list) -> tuple[float, float, int]:
    """Quality focal loss (arXiv 2006.04388, equation 6) and GIoU loss, anchor by anchor; and the positives."""
    sizes = [(score.shape[2], score.shape[3]) for score in cls_scores]
    anchors, flags = head.get_anchors(sizes, metas, 'cpu')
    labels, label_weights, _, _, _ = head.get_targets(anchors, flags, boxes, metas)
    cls_loss = box_loss = 0.0
    positives = 0
    for level in range(len(sizes)):
        for image in range(2):
            for index in range(len(anchors[image][level])):
                location, number = divmod(index, 2)
                row, column = divmod(location, sizes[level][1])
                logits = cls_scores[level][image, number * NUM_CLASSES:(number + 1) * NUM_CLASSES, row, column]
                label, target = int(labels[level][image, index]), [0.0] * NUM_CLASSES
                if label < NUM_CLASSES:
                    anchor = anchors[image][level][index]
                    box = decode(anchor, bbox_preds[level][image, number * 4:number * 4 + 4, row, column])
                    (match, ) = boxes[image].bboxes[boxes[image].labels == label].tolist()
                    iou, giou = iou_and_giou(box, match)
                    target[label] = iou
                    box_loss += 1 - giou
                    positives += 1
                for logit, quality in zip(logits.tolist(), target):
                    score = 1 / (1 + math.exp(-logit))
                    entropy = -quality * math.log(score) - (1 - quality) * math.log(1 - score)
                    cls_loss += float(label_weights[level][image, index]) * abs(quality - score)**2 * entropy
    return cls_loss, box_loss, positives


@pytest.mark.parametrize('decoded', [True, False])
@pytest.mark.parametrize(('border', 'pos_weight'), [(-1, -1), (20, 3.0)])
def test_quality_focal_loss_and_giou_written_out(border: int, pos_weight: float, decoded: bool) -> None:
    """With targets given as boxes or as deltas the quality is the same; the box loss wants boxes."""
    head = BigRetinaHead(NUM_CLASSES, WIDTH, FIXED, anchor_generator=ANCHORS, reg_decoded_bbox=decoded,
                         loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.5),
                         loss_bbox=dict(type='GIoULoss', loss_weight=2.0) if decoded else dict(type='L1Loss'),
                         train_cfg=train_cfg(dict(type='ATSSAssigner', topk=9), allowed_border=border,
                                             pos_weight=pos_weight))
    cls_scores, bbox_preds = outputs()
    boxes, metas, _ = truth()
    losses = head.loss_by_feat(cls_scores, bbox_preds, boxes, metas)
    cls_loss, box_loss, positives = written_out_losses(head, cls_scores, bbox_preds, boxes, metas)
    assert positives > 5
    assert sum(losses['loss_cls']).item() == pytest.approx(1.5 * cls_loss / positives, rel=1e-5)
    if decoded:
        assert sum(losses['loss_bbox']).item() == pytest.approx(2 * box_loss / positives, rel=1e-5)


def test_the_number_of_positives_is_averaged_over_processes_and_at_least_one(monkeypatch: pytest.MonkeyPatch) -> None:
    head = MODELS.build(big_retina_head(train_cfg=train_cfg(TRAIN_CFG['assigner'])))
    sizes = [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]
    for boxes in (BOXES, [[], []]):
        for share in (1.0, 0.5, 0.0):
            monkeypatch.setattr('mmbignas.models.dense_heads.big_retina_head.reduce_mean',
                                lambda count, share=share: count * share)
            instances, metas, _ = truth(boxes)
            targets = head.get_targets(*head.get_anchors(sizes, metas, 'cpu'), instances, metas)
            # MMDetection counts an image without a positive as one
            own = sum(max(int(sum((labels[image] < NUM_CLASSES).sum() for labels in targets[0])), 1)
                      for image in range(2))
            assert targets[4] == max(own * share, 1)


def test_the_quality_is_a_target_and_gets_no_gradient() -> None:
    head = BigRetinaHead(**{key: value for key, value in big_retina_head(
        in_channels=WIDTH, cls_tower=FIXED, train_cfg=train_cfg(TRAIN_CFG['assigner'])).items() if key != 'type'})
    cls_scores, bbox_preds = outputs()
    sum(head.loss_by_feat(cls_scores, bbox_preds, *truth())['loss_cls']).backward()
    assert all(score.grad.any() for score in cls_scores)
    assert all(pred.grad is None for pred in bbox_preds)


@pytest.mark.parametrize('boxes', [[[], []], [BOXES[0], []]], ids=['none', 'one image'])
def test_no_positives(boxes: list) -> None:
    """Finite losses and gradients; levels without a positive add zero, whatever they predict."""
    model = scramble(build(retinanet()))
    losses = model.loss(torch.randn(2, 3, *SIZE), samples(boxes, size=SIZE))
    assert all(torch.isfinite(loss) for loss in tensors(losses))
    assert (sum(losses['loss_bbox']) > 0) == bool(boxes[0])
    sum(tensors(losses)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_an_infinite_prediction_of_a_level_without_positives_does_not_spread() -> None:
    head = MODELS.build(big_retina_head(train_cfg=train_cfg(TRAIN_CFG['assigner'])))
    cls_scores, bbox_preds = outputs()
    with torch.no_grad():
        bbox_preds[0].fill_(math.inf)
    boxes, metas, _ = truth([[], []])
    losses = head.loss_by_feat(cls_scores, bbox_preds, boxes, metas)
    assert sum(losses['loss_bbox']) == 0
    sum(tensors(losses)).backward()
    assert all(not pred.grad.any() for pred in bbox_preds)


def test_trains_and_predicts_in_a_detector() -> None:
    model = build(retinanet())
    data = model.data_preprocessor(batch(), training=True)
    losses = model(**data, mode='loss')
    assert set(losses) == {'loss_cls', 'loss_bbox'}
    # 5 levels; with 1% prior each logit's loss is 0.01^2 * log(1 / 0.99), summed and divided by the positives
    assert all(0 < loss.item() < 10 for loss in losses['loss_cls'])
    predictions = model.eval().val_step(batch())
    assert all(len(sample.pred_instances.bboxes) <= 100 for sample in predictions)


# -- refusals --------------------------------------------------------------------------------------------------------

REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    (dict(cls_tower=dict(depth=[1], out_channel=[8])), ['BigRetinaHead.cls_tower', 'kernel_size']),
    (dict(cls_tower=tower(expand_ratio=[1])), ['BigRetinaHead.cls_tower', 'expand_ratio']),
    (dict(cls_tower=[1, 8, 3]), ['BigRetinaHead.cls_tower', '[1, 8, 3]']),
    (dict(cls_tower=None), ['BigRetinaHead.cls_tower', 'None']),
    (dict(reg_tower=dict(depth=[1])), ['BigRetinaHead.reg_tower', 'kernel_size']),
    (dict(cls_tower=tower(depth=[0])), ['BigRetinaHead.cls_tower.depth', '0']),
    (dict(cls_tower=tower(kernel_size=[2])), ['BigRetinaHead.cls_tower.kernel_size', '2', 'odd']),
    (dict(reg_tower=tower(out_channel=[8, 8, 8])),
     ['BigRetinaHead.reg_tower.out_channel', 'one value per stage (1)', '(8, 8, 8)']),
    (dict(norm_cfg=dict(type='GN', num_groups=2)), ['norm_cfg.type', "'GN'"]),
]


@pytest.mark.parametrize(('change', 'parts'), REFUSED, ids=str)
def test_refused(change: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        MODELS.build(big_retina_head(**change))
    message = str(error.value)
    assert '\n' not in message
    for part in parts:
        assert part in message
