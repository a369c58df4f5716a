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

SHAPES = [(1, 2), (3, 5), (200, 2), (400, 12), (60, 7, 5), (2, 3, 1), (20, 11, 4, 4), (4, 2, 2, 3)]
UNCLIPPED = 1e30
ALPHAS = [(-1., 1.), (-2., .5), (0., 1.), (-.5, 0.), (.3, 2.), (1., 1.5), (-3., 3.), (.7, .7), (-1., .9)]


def pairs(*scales):
    """Logits of students and teachers: vectors, or maps of them, of few samples and of many."""
    return [tuple(torch.randn(2, *shape) * scale) for shape in SHAPES for scale in scales]


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
    q, log_ratio = softmax(x, 1), log_softmax(y, 1) - log_softmax(x, 1)
    if alpha == 0:
        factors = -q * log_ratio
    elif alpha == 1:
        factors = -softmax(y, 1)
    else:
        with np.errstate(over='ignore'):
            factors = -q * np.minimum(np.exp(alpha * log_ratio), clip) / alpha
    of_log_q = np.eye(x.shape[1]) - q[:, None]  # of each row: by class k of log(q[j]), at [j, k]
    return np.einsum('rj,rjk->rk', factors, of_log_q)


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


@pytest.mark.parametrize('temperature', [1., .5, 4])
def test_soft_labels(temperature):
    for student, teacher in pairs(.1, 1., 5.):
        value, gradient = run(SoftLabelLoss(temperature), student, teacher)
        x, y = rows(student), rows(teacher)
        probabilities = softmax(y / temperature, 1)
        crossed = -(probabilities * log_softmax(x / temperature, 1)).sum(1).mean()
        entropy = -(probabilities * log_softmax(y / temperature, 1)).sum(1).mean()
        assert value == pytest.approx(temperature ** 2 * (crossed - entropy), rel=1e-5, abs=1e-6)
        expected = temperature * (softmax(x / temperature, 1) - probabilities) / len(x)
        np.testing.assert_allclose(gradient * len(x), expected * len(x), rtol=1e-5, atol=1e-5)


def test_soft_labels_train_like_a_cross_entropy():
    """With the same gradient as PyTorch's, given probabilities, by another path."""
    for student, teacher in pairs(2.):
        reference = student.double().requires_grad_()
        loss = torch.nn.functional.cross_entropy(reference, teacher.double().softmax(1), reduction='none')
        loss.mean().backward()
        gradient, expected = run(SoftLabelLoss(), student, teacher)[1], rows(reference.grad)
        np.testing.assert_allclose(gradient * len(expected), expected * len(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('loss', [SoftLabelLoss(), SoftLabelLoss(3.), *(AlphaDivergenceLoss(*own) for own in ALPHAS)])
def test_agreement(loss):
    for student, _ in pairs(.5, 4.):
        value, gradient = run(loss, student, student.clone())
        assert abs(value) < 1e-12
        assert abs(gradient).max() < 1e-6


@pytest.mark.parametrize('difference', [1e-1, 3e-2, 1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize('alpha', [None, -2., -1., 0., .5, 1., 3.])
def test_of_nearly_equal_logits(difference, alpha):
    """Where the divergence is far below the entropies; below a millionth, float32 leaves its size alone."""
    loss = SoftLabelLoss() if alpha is None else AlphaDivergenceLoss(alpha, alpha)
    for _ in range(10):
        teacher = torch.randn(8, 50) * 3
        student = teacher + torch.randn(8, 50) * difference
        x, y = rows(student), rows(teacher)
        value, gradient = run(loss, student, teacher)
        expected = divergence_of(x, y, 1. if alpha is None else alpha)
        assert value == pytest.approx(expected.mean(), rel=2e-4, abs=1e-7)
        reference = gradient_of(x, y, 1. if alpha is None else alpha) / len(x)
        np.testing.assert_allclose(gradient, reference, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize('alphas', ALPHAS)
@pytest.mark.parametrize('clip', [5., 1.5, 50])
def test_alpha_divergence(alphas, clip):
    for student, teacher in pairs(.3, 1., 3.):
        value, gradient = run(AlphaDivergenceLoss(*alphas, clip), student, teacher)
        x, y = rows(student), rows(teacher)
        expected_value, expected = larger_of(x, y, alphas, clip)
        assert value == pytest.approx(expected_value, rel=1e-4, abs=1e-6)
        # Where both divergences are nearly equal, rounding may choose the other.
        np.testing.assert_allclose(gradient * len(x), expected * len(x), rtol=1e-4, atol=5e-5 + 1e-5 * clip)


@pytest.mark.parametrize('alphas', ALPHAS)
def test_the_gradient_is_that_of_the_divergence_where_nothing_is_clipped(alphas):
    for student, teacher in pairs(.8):
        x = student.double().requires_grad_()
        p, q = teacher.double().softmax(1), x.softmax(1)
        expected = torch.maximum(*(written_out(p, q, alpha) for alpha in alphas)).mean()
        expected.backward()
        value, gradient = run(AlphaDivergenceLoss(*alphas, UNCLIPPED), student, teacher)
        assert value == pytest.approx(expected.item(), rel=1e-4)
        wanted = rows(x.grad)
        np.testing.assert_allclose(gradient * len(wanted), wanted * len(wanted), rtol=1e-3, atol=1e-5)


def written_out(p, q, alpha):
    """The alpha-divergence of each sample, for autograd."""
    if alpha in (0, 1):
        return (p * (p / q).log()).sum(1) if alpha else (q * (q / p).log()).sum(1)
    return (q * ((p / q) ** alpha - 1)).sum(1) / (alpha * (alpha - 1))


def test_both_alphas_are_chosen_sample_by_sample():
    """A student that is less sure than its teacher learns by the negative alpha, a surer one by the positive one."""
    sharp, flat = torch.tensor([[4., 0., 0., 0.]]), torch.tensor([[1., 0., 0., 0.]])
    for student, teacher, alpha in ((flat, sharp, -1.), (sharp, flat, 1.)):
        np.testing.assert_allclose(run(AlphaDivergenceLoss(), student, teacher)[1],
                                   gradient_of(rows(student), rows(teacher), alpha, 5.), rtol=1e-4, atol=1e-6)
    for x, y in ((rows(own) for own in pair) for pair in pairs(1.5) if len(pair[0]) > 50):
        values = [divergence_of(x, y, alpha, 5.) for alpha in (-1., 1.)]
        assert set((values[0] > values[1]).tolist()) == {True, False}


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
    for student, teacher in pairs(1.):
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
    rng = random.Random(0)
    for _ in range(10):
        drawn = [(rng.randint(1, 5), rng.randint(2, 12), *rng.choice([(), (3,), (2, 3)])) for _ in range(6)]
        modules = [[tuple(torch.randn(2, *shape)) for shape in drawn[:count]] for count in rng.sample([1, 2, 3, 6], 2)]
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
