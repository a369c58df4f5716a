"""Losses of class scores against definitions in float64."""
import random

import numpy as np
import pytest
import torch
from mmpretrain.structures import DataSample
from scipy.special import expit, log_expit, log_softmax, softmax

from mmbignas.distill import GuidedSoftLabelLoss, SoftBCELoss, SoftCrossEntropyLoss, SoftLabelLoss
from mmbignas.errors import ConfigError
from mmbignas.registry import MODELS

SEEDS = range(20)


def outputs(rng, vectors=False):
    """Logits of a student and a teacher: two modules, called a few times."""
    shapes = [[(rng.randint(1, 5), 6, *(() if vectors else (rng.randint(1, 3), ) * rng.randint(0, 2)))
               for _ in range(rng.randint(1, 3))] for _ in range(2)]
    return ([[torch.randn(shape) * 3 for shape in module] for module in shapes] for _ in range(2))


def rows(modules):
    """A sample a row, of all tensors, in float64."""
    return np.concatenate([np.moveaxis(own.double().numpy(), 1, -1).reshape(-1, own.shape[1])
                           for module in modules for own in module])


@pytest.mark.parametrize('temperature', [1., 4.])
@pytest.mark.parametrize('seed', SEEDS)
def test_cross_entropy(seed, temperature):
    torch.manual_seed(seed)
    student, teacher = outputs(random.Random(seed))
    x, y = rows(student) / temperature, rows(teacher) / temperature
    expected = -(softmax(y, 1) * log_softmax(x, 1)).sum(1).mean() * temperature ** 2
    assert SoftCrossEntropyLoss(temperature)(student, teacher).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('seed', SEEDS)
def test_binary_cross_entropy(seed):
    torch.manual_seed(seed)
    student, teacher = outputs(random.Random(seed))
    x, y = rows(student), rows(teacher)
    expected = -(expit(y) * log_expit(x) + expit(-y) * log_expit(-x)).mean()
    assert SoftBCELoss()(student, teacher).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('mixed', [False, True])
@pytest.mark.parametrize('seed', SEEDS)
def test_guided_where_the_teacher_is_right(seed, mixed):
    torch.manual_seed(seed)
    student, teacher = torch.randn(8, 5) * 2, torch.randn(8, 5) * 2
    labels = torch.where(torch.rand(8) < .5, teacher.argmax(1), torch.randint(0, 5, (8, )))
    samples = [DataSample().set_gt_label(int(label)) for label in labels]
    if mixed:
        for own, label in zip(samples, labels):
            own.set_gt_score(torch.full((5, ), .1).index_fill(0, label, .6)).set_gt_label([int(label), 0])
    loss = 0.
    for x, y, label in zip(student.double(), teacher.double(), labels):
        if y.argmax() == label:
            p, q = torch.distributions.Categorical(logits=y / 3), torch.distributions.Categorical(logits=x / 3)
            loss += 9 * torch.distributions.kl_divergence(p, q).item() / 8
    assert GuidedSoftLabelLoss(3.)([[student]], [[teacher]], samples).item() == pytest.approx(loss, rel=1e-5)


def test_a_teacher_that_is_always_wrong_teaches_nothing():
    student, teacher = torch.randn(4, 3).requires_grad_(), torch.tensor([[0., 5., 0.]] * 4)
    samples = [DataSample().set_gt_label(0) for _ in range(4)]
    loss = GuidedSoftLabelLoss()([[student]], [[teacher]], samples)
    loss.backward()
    assert loss.item() == 0 and (student.grad == 0).all()
    right = [DataSample().set_gt_label(1) for _ in range(4)]
    assert GuidedSoftLabelLoss()([[student]], [[teacher]], right).item() == pytest.approx(
        SoftLabelLoss()([[student]], [[teacher]]).item(), rel=1e-6)


def test_guided_needs_labels_of_images():
    logits = torch.randn(2, 3)
    with pytest.raises(ConfigError, match='GuidedSoftLabelLoss: data samples must have a gt_label of one class'):
        GuidedSoftLabelLoss()([[logits]], [[logits]], [DataSample(), DataSample()])
    with pytest.raises(ConfigError, match=r'outputs of GuidedSoftLabelLoss must be logits .* got \[\(1, 2, 3, 3\)\]'):
        GuidedSoftLabelLoss()([[torch.randn(1, 2, 3, 3)]], [[torch.randn(1, 2, 3, 3)]], [])


@pytest.mark.parametrize('kind', ['SoftCrossEntropyLoss', 'GuidedSoftLabelLoss'])
@pytest.mark.parametrize('temperature', [0, -1, 'a', None])
def test_bad_temperatures(kind, temperature):
    with pytest.raises(ConfigError, match=rf'{kind}.temperature must be a number > 0, got '):
        MODELS.build(dict(type=f'mmbignas.{kind}', temperature=temperature))


@pytest.mark.parametrize('dtype', [torch.half, torch.bfloat16, torch.double])
def test_at_least_float32(dtype):
    student, teacher = ([[(torch.randn(4, 5) * 3).to(dtype)]] for _ in range(2))
    for loss in (SoftCrossEntropyLoss(), SoftBCELoss()):
        value = loss(student, teacher)
        assert value.dtype == (torch.double if dtype == torch.double else torch.float)
        double = [[[own.double() for own in module] for module in modules] for modules in (student, teacher)]
        assert value.item() == pytest.approx(loss(*double).item(), rel=1e-5)
