"""Losses of dense heads against definitions in float64."""
import math
import random

import numpy as np
import pytest
import torch

from mmbignas.distill import DenseBoxLoss, DenseGIoULoss, DenseKLLoss, FeatureMSELoss
from mmbignas.distill.job import check_scores
from mmbignas.distill.parsing import parse_jobs
from mmbignas.errors import ConfigError
from mmbignas.registry import MODELS

SEEDS = range(20)


def tensors(rng, channels, scale=3., modules=1):
    """The outputs of some modules, each called a few times with different batches and sizes."""
    return [[torch.randn(rng.randint(1, 3), channels, rng.randint(1, 5), rng.randint(1, 5)) * scale
             for _ in range(rng.randint(1, 4))] for _ in range(modules)]


def like(outputs, scale=3., difference=None):
    """Other outputs of the same shapes: unrelated ones, or ones that differ by ``difference``."""
    if difference is None:
        return [[torch.randn_like(own) * scale for own in module] for module in outputs]
    return [[own + torch.randn_like(own) * difference for own in module] for module in outputs]


def kl_reference(student, teacher, beta=0., score_thr=0.):
    total = weight = 0.
    for ours, theirs in zip(student, teacher):
        for x, y in zip(ours, theirs):
            q, p = (torch.distributions.Bernoulli(logits=own.double()) for own in (x, y))
            chosen = p.probs.max(1, keepdim=True).values > score_thr
            divergence = torch.distributions.kl_divergence(p, q) * (p.probs - q.probs).abs() ** beta
            total += (divergence * chosen).sum().item()
            weight += (p.probs * chosen).sum().item()
    return total / max(weight, 1)


def distance(x, y):
    return sum(abs(x - y))


def box_reference(student, teacher, box_dim=4, compare=distance, score_thr=0.):
    """Anchor by anchor, in plain numbers: anchors share the channels in blocks, class or coordinate innermost."""
    total = weight = 0.
    for x, y, logits in zip(student[0], teacher[0], teacher[1]):
        x, y, logits = (own.double().numpy() for own in (x, y, logits))
        for n, h, w in np.ndindex(y.shape[0], *y.shape[2:]):
            anchors = y.shape[1] // box_dim
            classes = logits.shape[1] // anchors
            for anchor in range(anchors):
                best = max(logits[n, anchor * classes + label, h, w] for label in range(classes))
                score = 1 / (1 + math.exp(-best))
                if score > score_thr:
                    own = slice(anchor * box_dim, (anchor + 1) * box_dim)
                    weight += score
                    total += score * compare(x[n, own, h, w], y[n, own, h, w])
    return total / max(weight, 1)


@pytest.mark.parametrize('seed', SEEDS)
def test_kl(seed):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    teacher = tensors(rng, 6, modules=rng.randint(1, 2))
    student = like(teacher)
    loss = DenseKLLoss()(student, teacher)
    assert loss.item() == pytest.approx(kl_reference(student, teacher), rel=1e-5)
    assert loss > 0
    assert DenseKLLoss()(teacher, teacher).item() == 0


@pytest.mark.parametrize('difference', [1e-1, 1e-2, 1e-3])
@pytest.mark.parametrize('shift', [0., -4., -12., 12.])
def test_kl_of_nearly_equal_scores(difference, shift):
    """Small beside the entropies that it is a difference of; never negative."""
    for _ in range(3):
        teacher = [[torch.randn(2, 8, 40, 40) + shift]]
        student = like(teacher, difference=difference)
        loss = DenseKLLoss()(student, teacher).item()
        assert loss >= 0
        assert loss == pytest.approx(kl_reference(student, teacher), rel=2e-2, abs=1e-9)


def test_kl_of_saturated_scores():
    teacher, student = torch.full((1, 1, 1, 4), 80.), torch.tensor([[[[80., -80., 200., 1e4]]]])
    teacher[..., 2:] = -80.
    loss = DenseKLLoss()([[student]], [[teacher]])
    assert loss.item() == pytest.approx((80 + 200 + 1e4) / 2, rel=1e-5)


@pytest.mark.parametrize('seed', SEEDS)
def test_kl_gradient(seed):
    """That of the divergence by the logits is the difference of the scores."""
    torch.manual_seed(seed)
    student, teacher = (torch.randn(2, 3, 4, 5) * 4 for _ in range(2))
    student.requires_grad_()
    DenseKLLoss()([[student]], [[teacher]]).backward()
    scores = teacher.double().sigmoid()
    expected = (student.detach().double().sigmoid() - scores) / max(scores.sum(), 1)
    torch.testing.assert_close(student.grad.double(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize('box_dim', [4, 5])
def test_box(seed, box_dim):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    anchors, classes = rng.randint(1, 3), rng.randint(1, 4)
    boxes = tensors(rng, anchors * box_dim)
    logits = [torch.randn(own.shape[0], anchors * classes, *own.shape[2:]) * 3 - 1 for own in boxes[0]]
    student = [*like(boxes), [torch.randn_like(own) for own in logits]]
    teacher = [*boxes, logits]
    loss = DenseBoxLoss(box_dim)(student, teacher)
    assert loss.item() == pytest.approx(box_reference(student, teacher, box_dim), rel=1e-5)
    assert DenseBoxLoss(box_dim)([*boxes, student[1]], teacher).item() == 0


def giou_loss_at(anchor, stds):
    """Of boxes of corners, decoded at an anchor of corners, in plain numbers."""
    def decoded(deltas):
        dx, dy, dw, dh = deltas * stds
        width, height = anchor[2] - anchor[0], anchor[3] - anchor[1]
        x, y = anchor[0] + width / 2 + dx * width, anchor[1] + height / 2 + dy * height
        width, height = width * math.exp(dw), height * math.exp(dh)
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2

    def compare(x, y):
        a, b = decoded(x), decoded(y)
        areas = [(own[2] - own[0]) * (own[3] - own[1]) for own in (a, b)]
        both = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
        union = sum(areas) - both
        around = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
        return 1 - both / union + (around - union) / around
    return compare


def dense_predictions(rng, anchors, classes, scale):
    boxes = tensors(rng, anchors * 4, scale)
    logits = [torch.randn(own.shape[0], anchors * classes, *own.shape[2:]) * 3 - 1 for own in boxes[0]]
    return [*like(boxes, scale), [torch.randn_like(own) for own in logits]], [*boxes, logits]


@pytest.mark.parametrize('seed', SEEDS)
def test_giou_at_any_anchor(seed):
    """The loss decodes at one anchor; the reference at a random one."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    student, teacher = dense_predictions(rng, rng.randint(1, 3), rng.randint(1, 4), .7)
    corner, size = [rng.uniform(-50, 50) for _ in range(2)], [rng.uniform(5, 300) for _ in range(2)]
    anchor = [*corner, corner[0] + size[0], corner[1] + size[1]]
    stds, score_thr = rng.choice([(1., 1., 1., 1.), (.1, .1, .2, .2)]), rng.choice([0., .05, .5])
    coder = None if stds[0] == 1 else dict(type='mmdet.DeltaXYWHBBoxCoder', target_stds=stds)
    loss = DenseGIoULoss(score_thr, coder)
    expected = box_reference(student, teacher, 4, giou_loss_at(anchor, np.array(stds)), score_thr)
    assert loss(student, teacher).item() == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert loss([teacher[0], student[1]], teacher).item() == pytest.approx(0, abs=1e-5)


def test_giou_has_a_gradient_for_the_students_boxes_alone():
    student, teacher = dense_predictions(random.Random(0), 2, 3, .5)
    for own in [*student[0], *student[1]]:
        own.requires_grad_()
    DenseGIoULoss(0.)(student, teacher).backward()
    assert all(own.grad.abs().sum() > 0 for own in student[0])
    assert all(own.grad is None for own in student[1])


@pytest.mark.parametrize('seed', SEEDS)
def test_restricted_to_what_the_teacher_finds(seed):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    student, teacher = dense_predictions(rng, 2, 3, 1.)
    score_thr = rng.uniform(.05, .9)
    assert DenseBoxLoss(score_thr=score_thr)(student, teacher).item() == pytest.approx(
        box_reference(student, teacher, score_thr=score_thr), rel=1e-5)
    scores = [student[1]], [teacher[1]]
    assert DenseKLLoss(score_thr=score_thr)(*scores).item() == pytest.approx(
        kl_reference(*scores, score_thr=score_thr), rel=1e-5)


@pytest.mark.parametrize('beta', [1, 2, 2.5])
def test_quality_focal(beta):
    for _ in range(5):
        teacher = [[torch.randn(2, 6, 5, 4) * 3]]
        student = like(teacher)
        student[0][0].requires_grad_()
        loss = DenseKLLoss(beta=beta)(student, teacher)
        expected = kl_reference([[student[0][0].detach()]], teacher, beta)
        assert loss.item() == pytest.approx(expected, rel=1e-5)
        loss.backward()
        assert student[0][0].grad.isfinite().all()
        same = teacher[0][0].clone().requires_grad_()
        DenseKLLoss(beta=beta)([[same]], teacher).backward()
        assert (same.grad == 0).all()


@pytest.mark.parametrize('loss', [DenseBoxLoss(), DenseGIoULoss()])
def test_modules_in_the_wrong_order_or_of_other_levels(loss):
    boxes, logits = torch.randn(2, 8, 4, 4), torch.randn(2, 6, 4, 4)
    for modules in ([[logits], [boxes]], [[boxes], [logits[..., :2]]], [[boxes, boxes], [logits]]):
        with pytest.raises(ConfigError, match='a loss of boxes needs .*, got '):
            loss(modules, modules)


@pytest.mark.parametrize(('make', 'parts'), [
    (lambda: DenseKLLoss(beta=.5), ['DenseKLLoss.beta', '0.5', 'from 1 to 10']),
    (lambda: DenseKLLoss(score_thr=1), ['DenseKLLoss.score_thr', '1', '>= 0 and < 1']),
    (lambda: DenseBoxLoss(score_thr=-.1), ['DenseBoxLoss.score_thr', '-0.1']),
    (lambda: DenseGIoULoss('a'), ['DenseGIoULoss.score_thr', "'a'"])])
def test_bad_values(make, parts):
    with pytest.raises(ConfigError) as error:
        make()
    for part in parts:
        assert part in str(error.value)


def test_few_objects_do_not_blow_up_the_losses():
    """The sums are divided by the sum of the teacher's scores, but never by less than 1."""
    teacher, student = torch.full((1, 2, 3, 3), -20.), torch.zeros(1, 2, 3, 3)
    assert DenseKLLoss()([[student]], [[teacher]]).item() == pytest.approx(18 * math.log(2), rel=1e-5)
    boxes = torch.ones(1, 8, 3, 3)
    loss = DenseBoxLoss()([[boxes], [student]], [[boxes * 0], [teacher]])
    assert loss.item() == pytest.approx(18 * 4 / (1 + math.exp(20)), rel=1e-4)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.half])
@pytest.mark.parametrize(('loss', 'reference', 'channels'), [
    (FeatureMSELoss(), None, (6, )), (DenseKLLoss(), kl_reference, (6, )), (DenseBoxLoss(), box_reference, (8, 4))])
def test_low_precision_is_computed_in_float(dtype, loss, reference, channels):
    for _ in range(5):
        student, teacher = ([[torch.randn(2, width, 9, 9).mul(2).to(dtype)] for width in channels] for _ in range(2))
        for outputs in student:
            outputs[0].requires_grad_()
        value = loss(student, teacher)
        assert value.dtype == torch.float
        value.backward()
        detached = [[own.detach() for own in module] for module in student]
        if reference is None:
            expected = (detached[0][0].double() - teacher[0][0].double()).square().mean().item()
        else:
            expected = reference([[own.double() for own in module] for module in detached],
                                 [[own.double() for own in module] for module in teacher])
        assert value.item() == pytest.approx(expected, rel=1e-5)
        assert student[0][0].grad.dtype == dtype


@pytest.mark.parametrize('loss', [FeatureMSELoss(), DenseKLLoss()])
def test_missing_outputs_are_an_error(loss):
    """A module that was called more often in one pass than in the other."""
    one = torch.randn(1, 2, 3, 3)
    with pytest.raises(ValueError, match='zip'):
        loss([[one, one]], [[one]])


def test_losses_are_registered():
    for cls in (FeatureMSELoss, DenseKLLoss, DenseBoxLoss, DenseGIoULoss):
        assert type(MODELS.build(dict(type=f'mmbignas.{cls.__name__}'))) is cls


@pytest.mark.parametrize('loss', ['DenseKLLoss', 'DenseBoxLoss', 'DenseGIoULoss'])
@pytest.mark.parametrize('field', ['mimic_name', 'teacher_mimic_name'])
def test_scores_of_a_softmax_are_refused(loss, field):
    """They compare each score as one of its own, which those of a softmax are not."""
    names = ['bbox_head.retina_cls'] * (1 if loss == 'DenseKLLoss' else 2)
    jobs = parse_jobs(dict(cls=dict(mimic_name=names, loss=dict(type=f'mmbignas.{loss}'))), 'DistillHook.jobs', [])
    plain = dict(type='RetinaNet', backbone=dict(type='ResNet', depth=18), neck=dict(
        type='FPN', in_channels=[64, 128, 256, 512], out_channels=8, num_outs=5))
    for sigmoid in (True, False):
        head = dict(type='RetinaHead', num_classes=3, in_channels=8, feat_channels=8, stacked_convs=1,
                    loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=sigmoid))
        with torch.device('meta'):
            model = MODELS.build(dict(plain, bbox_head=head))
        if sigmoid:
            check_scores(model, jobs.values(), field)
            continue
        with pytest.raises(ConfigError, match='^DistillHook.jobs.cls.loss must be a loss for scores of a softmax, '
                           rf"which those of bbox_head are \({field}='bbox_head.retina_cls'.*, got '{loss}'$"):
            check_scores(model, jobs.values(), field)
    others = parse_jobs(dict(cls=dict(mimic_name=names[:1], loss=dict(type='mmbignas.FeatureMSELoss'))), 'x', [])
    check_scores(model, others.values(), field)
