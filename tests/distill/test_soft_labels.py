"""Soft labels against definitions in float64."""
import math
import random

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr, softmax

from mmbignas.distill import AlphaDivergenceLoss, SoftLabelLoss
from mmbignas.errors import ConfigError
from mmbignas.registry import MODELS

SEEDS = range(30)
UNCLIPPED = 1e30
ALPHAS = [(-1., 1.), (-2., .5), (0., 1.), (-.5, 0.), (.3, 2.), (1., 1.5), (-3., 3.), (.7, .7), (-1., .9)]


def pair(rng, scale=1.):
    """Logits of a student and a teacher: vectors, or maps of them."""
    shape = rng.randint(1, 5), rng.randint(2, 12), *(rng.randint(1, 4) for _ in range(rng.randint(0, 2)))
    return torch.randn(shape) * scale, torch.randn(shape) * scale


def rows(logits):
    """A sample a row, in float64."""
    return np.moveaxis(logits.detach().double().numpy(), 1, -1).reshape(-1, logits.shape[1])


def kl_of(x, y):
    """KL(teacher || student) of each row."""
    return rel_entr(softmax(y, 1), softmax(x, 1)).sum(1)


def divergence_of(x, y, alpha, clip=math.inf):
    """The alpha-divergence of each row; weights are clipped but in the limits."""
    if alpha in (0, 1):
        return kl_of(x, y) if alpha else kl_of(y, x)
    ratio = np.exp(log_softmax(y, 1) - log_softmax(x, 1))
    with np.errstate(over='ignore'):
        weights = np.minimum(ratio ** alpha, clip)
    return ((softmax(x, 1) * weights).sum(1) - 1) / (alpha * (alpha - 1))


def gradient_of(x, y, alpha, clip=math.inf):
    """By the student's logits, row by row, from the gradients of its log-probabilities."""
    gradients = []
    for own, log_q, log_p in zip(softmax(x, 1), log_softmax(x, 1), log_softmax(y, 1)):
        of_log_q = np.eye(len(own)) - own  # row k: of log(q[k])
        if alpha == 0:
            factors = -own * (log_p - log_q)
        elif alpha == 1:
            factors = -np.exp(log_p)
        else:
            factors = -own * np.minimum(np.exp(alpha * (log_p - log_q)), clip) / alpha
        gradients.append(factors @ of_log_q)
    return np.array(gradients)


def larger_of(x, y, alphas, clip):
    """Value and gradient of the mean over the rows."""
    values = [divergence_of(x, y, alpha, clip) for alpha in alphas]
    gradients = [gradient_of(x, y, alpha, clip) for alpha in alphas]
    gradient = np.where((values[0] > values[1])[:, None], *gradients)
    return np.maximum(*values).mean(), gradient / len(x)


def run(loss, student, teacher):
    """A loss of one module with one tensor, and the gradient by the student."""
    student = student.clone().requires_grad_()
    value = loss([[student]], [[teacher]])
    assert value.dtype == torch.float and value.shape == ()
    value.backward()
    return value.item(), rows(student.grad)


@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize('temperature', [1., .5, 4])
def test_soft_labels(seed, temperature):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    student, teacher = pair(rng, rng.choice([.1, 1., 5.]))
    value, gradient = run(SoftLabelLoss(temperature), student, teacher)
    x, y = rows(student), rows(teacher)
    probabilities = softmax(y / temperature, 1)
    crossed = -(probabilities * log_softmax(x / temperature, 1)).sum(1).mean()
    entropy = -(probabilities * log_softmax(y / temperature, 1)).sum(1).mean()
    assert value == pytest.approx(temperature ** 2 * (crossed - entropy), rel=1e-5)
    expected = temperature * (softmax(x / temperature, 1) - probabilities) / len(x)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('seed', SEEDS)
def test_soft_labels_train_like_a_cross_entropy(seed):
    """With the same gradient as PyTorch's, given probabilities, by another path."""
    torch.manual_seed(seed)
    student, teacher = pair(random.Random(seed), 2.)
    reference = student.double().requires_grad_()
    loss = torch.nn.functional.cross_entropy(reference, teacher.double().softmax(1), reduction='none')
    loss.mean().backward()
    np.testing.assert_allclose(run(SoftLabelLoss(), student, teacher)[1], rows(reference.grad), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('loss', [SoftLabelLoss(), SoftLabelLoss(3.), *(AlphaDivergenceLoss(*own) for own in ALPHAS)])
def test_agreement(loss):
    for seed in SEEDS:
        torch.manual_seed(seed)
        student = pair(random.Random(seed), 4.)[0]
        value, gradient = run(loss, student, student.clone())
        assert abs(value) < 1e-12
        assert abs(gradient).max() < 1e-7


@pytest.mark.parametrize('difference', [1e-1, 3e-2, 1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize('alpha', [None, -2., -1., 0., .5, 1., 3.])
def test_of_nearly_equal_logits(difference, alpha):
    """Where the divergence is far below the entropies; below a millionth, float32 leaves its size alone."""
    loss = SoftLabelLoss() if alpha is None else AlphaDivergenceLoss(alpha, alpha)
    for seed in range(10):
        torch.manual_seed(seed)
        teacher = torch.randn(8, 50) * 3
        student = teacher + torch.randn(8, 50) * difference
        x, y = rows(student), rows(teacher)
        value, gradient = run(loss, student, teacher)
        expected = divergence_of(x, y, 1. if alpha is None else alpha)
        assert value == pytest.approx(expected.mean(), rel=2e-4, abs=1e-7)
        reference = gradient_of(x, y, 1. if alpha is None else alpha) / len(x)
        np.testing.assert_allclose(gradient, reference, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize('alphas', ALPHAS)
@pytest.mark.parametrize('clip', [5., 1.5, 50])
def test_alpha_divergence(seed, alphas, clip):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    student, teacher = pair(rng, rng.choice([.3, 1., 3.]))
    value, gradient = run(AlphaDivergenceLoss(*alphas, clip), student, teacher)
    expected_value, expected = larger_of(rows(student), rows(teacher), alphas, clip)
    assert value == pytest.approx(expected_value, rel=1e-4, abs=1e-6)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5 * clip)


@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize('alphas', ALPHAS)
def test_the_gradient_is_that_of_the_divergence_where_nothing_is_clipped(seed, alphas):
    torch.manual_seed(seed)
    student, teacher = pair(random.Random(seed), .8)
    x = student.double().requires_grad_()
    p, q = teacher.double().softmax(1), x.softmax(1)

    def divergence(alpha):
        if alpha in (0, 1):
            return (p * (p / q).log()).sum(1) if alpha else (q * (q / p).log()).sum(1)
        return (q * ((p / q) ** alpha - 1)).sum(1) / (alpha * (alpha - 1))

    expected = torch.maximum(*(divergence(alpha) for alpha in alphas)).mean()
    expected.backward()
    value, gradient = run(AlphaDivergenceLoss(*alphas, UNCLIPPED), student, teacher)
    assert value == pytest.approx(expected.item(), rel=1e-4)
    np.testing.assert_allclose(gradient, rows(x.grad), rtol=1e-3, atol=1e-5)


def test_both_alphas_are_chosen_sample_by_sample():
    """A student that is less sure than its teacher learns by the negative alpha, a surer one by the positive one."""
    sharp, flat = torch.tensor([[4., 0., 0., 0.]]), torch.tensor([[1., 0., 0., 0.]])
    for student, teacher, alpha in ((flat, sharp, -1.), (sharp, flat, 1.)):
        np.testing.assert_allclose(run(AlphaDivergenceLoss(), student, teacher)[1],
                                   gradient_of(rows(student), rows(teacher), alpha, 5.), rtol=1e-4, atol=1e-6)
    picked = set()
    for seed in range(200):
        torch.manual_seed(seed)
        x, y = (rows(own) for own in pair(random.Random(seed), 1.5))
        values = [divergence_of(x, y, alpha, 5.) for alpha in (-1., 1.)]
        picked |= set((values[0] > values[1]).tolist())
    assert picked == {True, False}


def test_a_student_that_knows_nothing_learns():
    """Unclipped, the negative alpha would be the larger, and its clipped gradient next to nothing."""
    teacher, student = torch.zeros(1, 1000), torch.zeros(1, 1000)
    teacher[0, 3] = 16.
    x, y = rows(student), rows(teacher)
    assert divergence_of(x, y, -1.) > divergence_of(x, y, 1.)
    assert abs(gradient_of(x, y, -1., 5.)).max() < .01
    value, gradient = run(AlphaDivergenceLoss(), student, teacher)
    assert value == pytest.approx(kl_of(x, y)[0], rel=1e-5)
    assert gradient[0, 3] == pytest.approx(-softmax(y, 1)[0, 3] + 1e-3, rel=1e-4)


@pytest.mark.parametrize('alpha', [0., 1.])
@pytest.mark.parametrize('distance', [1e-4, 9e-4, 2e-3])
def test_limits(alpha, distance):
    for seed in range(10):
        torch.manual_seed(seed)
        student, teacher = pair(random.Random(seed))
        value, gradient = run(AlphaDivergenceLoss(alpha, alpha), student, teacher)
        x, y = rows(student), rows(teacher)
        assert value == pytest.approx((kl_of(x, y) if alpha else kl_of(y, x)).mean(), rel=1e-4)
        for near in (alpha - distance, alpha + distance):
            own_value, own_gradient = run(AlphaDivergenceLoss(near, near, UNCLIPPED), student, teacher)
            assert own_value == pytest.approx(value, rel=2e-2)
            np.testing.assert_allclose(own_gradient, gradient, rtol=5e-2, atol=1e-3)


@pytest.mark.parametrize('loss', [SoftLabelLoss(), SoftLabelLoss(.5), AlphaDivergenceLoss(clip=UNCLIPPED),
                                  *(AlphaDivergenceLoss(*own) for own in [*ALPHAS, (-100, 100)])])
def test_extreme_logits(loss):
    cases = [torch.tensor(own) for own in ([50., -50.], [-50., 50.], [50., 50.], [0., -50.], [-50., 0.], [0., 0.])]
    for student in cases:
        for teacher in cases:
            for classes in (2, 7):
                x, y = (torch.nn.functional.pad(own, (0, classes - 2))[None] for own in (student, teacher))
                value, gradient = run(loss, x, y)
                assert math.isfinite(value)
                assert np.isfinite(gradient).all()


@pytest.mark.parametrize('loss', [SoftLabelLoss(), AlphaDivergenceLoss(0, 1), AlphaDivergenceLoss()])
def test_values_of_extreme_logits(loss):
    student, teacher = torch.tensor([[50., -50., 0.]]), torch.tensor([[-50., 50., 0.]])
    value, gradient = run(loss, student, teacher)
    assert value == pytest.approx(100, rel=1e-6)
    if isinstance(loss, SoftLabelLoss):
        np.testing.assert_allclose(gradient, [[1, -1, 0]], atol=1e-6)


@pytest.mark.parametrize('loss', [SoftLabelLoss(2.), AlphaDivergenceLoss()])
def test_the_mean_is_over_the_samples_of_all_tensors(loss):
    for seed in range(10):
        rng = random.Random(seed)
        torch.manual_seed(seed)
        modules = [[pair(rng) for _ in range(rng.randint(1, 3))] for _ in range(rng.randint(1, 3))]
        value = loss([[own for own, _ in module] for module in modules],
                     [[own for _, own in module] for module in modules]).item()
        total = count = 0
        for x, y in (own for module in modules for own in module):
            for one, other in zip(rows(x), rows(y)):
                tensors = (torch.tensor(own, dtype=torch.float)[None] for own in (one, other))
                total += run(loss, *tensors)[0]
                count += 1
        assert value == pytest.approx(total / count, rel=1e-5)


@pytest.mark.parametrize('loss', [SoftLabelLoss(), AlphaDivergenceLoss()])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.half])
def test_low_precision_is_computed_in_float(loss, dtype):
    for _ in range(5):
        student, teacher = (torch.randn(4, 9).mul(2).to(dtype) for _ in range(2))
        value, gradient = run(loss, student, teacher)
        exact, expected = run(loss, student.float(), teacher.float())
        assert value == exact
        np.testing.assert_allclose(gradient, expected, rtol=1e-2, atol=1e-6)
        with torch.autocast('cpu', torch.bfloat16):
            assert run(loss, student, teacher)[0] == exact


@pytest.mark.parametrize('loss', [SoftLabelLoss(), AlphaDivergenceLoss()])
def test_the_teacher_gets_no_gradient(loss):
    student, teacher = (torch.randn(3, 4).requires_grad_() for _ in range(2))
    loss([[student]], [[teacher]]).backward()
    assert teacher.grad is None and student.grad is not None


@pytest.mark.parametrize('loss', [SoftLabelLoss(), AlphaDivergenceLoss()])
def test_missing_outputs_are_an_error(loss):
    one = torch.randn(1, 2)
    with pytest.raises(ValueError, match='zip'):
        loss([[one, one]], [[one]])


@pytest.mark.parametrize(('cfg', 'parts'), [
    (dict(type='SoftLabelLoss', temperature=0), ['SoftLabelLoss.temperature must be a number > 0, got 0']),
    (dict(type='AlphaDivergenceLoss', alpha_min=None), ['AlphaDivergenceLoss.alpha_min', 'None', 'from -100 to 100']),
    (dict(type='AlphaDivergenceLoss', alpha_max=101), ['AlphaDivergenceLoss.alpha_max', '101']),
    (dict(type='AlphaDivergenceLoss', alpha_min=2), ['alpha_min must be at most', 'alpha_max=1.0, got 2']),
    (dict(type='AlphaDivergenceLoss', clip=1), ['AlphaDivergenceLoss.clip must be a number > 1', 'got 1']),
])
def test_bad_arguments(cfg, parts):
    with pytest.raises(ConfigError) as error:
        MODELS.build(dict(cfg, type=f'mmbignas.{cfg["type"]}'))
    assert '\n' not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_losses_are_registered():
    for cls in (SoftLabelLoss, AlphaDivergenceLoss):
        assert type(MODELS.build(dict(type=f'mmbignas.{cls.__name__}'))) is cls
