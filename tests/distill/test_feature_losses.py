"""Losses of features against definitions in float64."""
import random

import numpy as np
import pytest
import torch

from mmbignas.distill import FeatureMSELoss
from mmbignas.errors import ConfigError

SEEDS = range(20)


def features(rng, channels, modules):
    """The outputs of some modules, each called a few times with different batches and sizes."""
    return [[torch.randn(rng.randint(1, 3), channels, rng.randint(1, 5), rng.randint(1, 5)) * 3
             for _ in range(rng.randint(1, 4))] for _ in range(modules)]


def like(outputs):
    return [[torch.randn_like(own) for own in module] for module in outputs]


def unit(vectors):
    return vectors / np.sqrt((vectors ** 2).sum(1, keepdims=True))


def distances(x, y, normalize):
    """At each position."""
    x, y = x.double().numpy(), y.double().numpy()
    if normalize:
        return ((unit(x) - unit(y)) ** 2).sum(1)
    return ((x - y) ** 2).mean(1)


@pytest.mark.parametrize('normalize', [False, True])
@pytest.mark.parametrize('seed', SEEDS)
def test_mean_over_the_tensors(seed, normalize):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    teacher = features(rng, rng.choice([1, 7, 12]), rng.randint(1, 3))
    student = like(teacher)
    expected = np.mean([distances(x, y, normalize).mean() for ours, theirs in zip(student, teacher)
                        for x, y in zip(ours, theirs)])
    assert FeatureMSELoss(normalize)(student, teacher).item() == pytest.approx(expected, rel=1e-5)
    assert FeatureMSELoss(normalize)(teacher, teacher).item() == 0


def test_directions_alone_count_when_normalized():
    teacher = features(random.Random(0), 6, 2)
    student = [[own * 3.5 for own in module] for module in teacher]
    assert FeatureMSELoss(normalize=True)(student, teacher).item() == pytest.approx(0, abs=1e-9)
    assert FeatureMSELoss()(student, teacher).item() > 1


@pytest.mark.parametrize('normalize', [False, True])
@pytest.mark.parametrize('seed', SEEDS)
def test_masked_by_the_teachers_scores(seed, normalize):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    [teacher] = features(rng, 6, 1)
    logits = [torch.randn(len(own), 4, *own.shape[2:]) * 3 - 2 for own in teacher]
    student, other = [torch.randn_like(own) for own in teacher], [torch.randn_like(own) for own in logits]
    scores = [1 / (1 + np.exp(-own.double().numpy().max(1))) for own in logits]
    total = sum((score * distances(x, y, normalize)).sum() for score, x, y in zip(scores, student, teacher))
    expected = total / max(sum(score.sum() for score in scores), 1)
    loss = FeatureMSELoss(normalize, masked=True)
    assert loss([student, other], [teacher, logits]).item() == pytest.approx(expected, rel=1e-5)
    # A module for each level, as in a neck, and one head for all.
    assert loss([*([own] for own in student), other], [*([own] for own in teacher), logits]).item() == pytest.approx(
        expected, rel=1e-5)


def test_a_mask_needs_scores_at_the_same_positions():
    x = torch.randn(1, 2, 3, 3)
    for modules in ([[x, x], [x]], [[x], [x[..., :2]]], [[x]]):
        with pytest.raises(ConfigError, match='FeatureMSELoss.masked: .* must have the same positions, got '):
            FeatureMSELoss(masked=True)(modules, modules)
