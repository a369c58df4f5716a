"""Distillation losses against definitions in float64."""
import math
import random

import numpy as np
import pytest
import torch

from mmbignas.distill import DenseBoxLoss, DenseKLLoss, FeatureMSELoss
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


def kl_reference(student, teacher):
    total = weight = 0.
    for ours, theirs in zip(student, teacher):
        for x, y in zip(ours, theirs):
            q, p = (torch.distributions.Bernoulli(logits=own.double()) for own in (x, y))
            total += torch.distributions.kl_divergence(p, q).sum().item()
            weight += p.probs.sum().item()
    return total / max(weight, 1)


def box_reference(student, teacher, box_dim=4):
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
                weight += score
                total += score * sum(abs(x[n, c, h, w] - y[n, c, h, w])
                                     for c in range(anchor * box_dim, (anchor + 1) * box_dim))
    return total / max(weight, 1)


@pytest.mark.parametrize('seed', SEEDS)
def test_mse_of_equal_and_of_differing_widths(seed):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    teacher = tensors(rng, 12, modules=rng.randint(1, 3))
    width = rng.choice([12, 7, 1, 15])
    student = [[torch.randn(own.shape[0], width, *own.shape[2:]) for own in module] for module in teacher]
    pairs = [(x, y) for ours, theirs in zip(student, teacher) for x, y in zip(ours, theirs)]
    expected = sum(np.mean((x.double() - y.double())[:, :].numpy() ** 2) for x, y in (
        (x[:, :min(width, 12)], y[:, :min(width, 12)]) for x, y in pairs)) / len(pairs)
    assert FeatureMSELoss()(student, teacher).item() == pytest.approx(expected, rel=1e-5)
    assert FeatureMSELoss()(teacher, teacher).item() == 0


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
    for cls in (FeatureMSELoss, DenseKLLoss, DenseBoxLoss):
        assert type(MODELS.build(dict(type=f'mmbignas.{cls.__name__}'))) is cls
