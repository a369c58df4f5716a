"""BigMobileNet: published figures, a network written out by hand, initialisation, BN calibration, refusals."""
from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.analysis import FlopAnalyzer
from torch import Tensor, nn
from torch.nn import functional as F

from mmbignas import ConfigError
from mmbignas.models import BigMobileNet
from mmbignas.models.blocks import BigInvertedBottleneck
from mmbignas.ops import DynamicConv2d, SwitchableBatchNorm2d
from mmbignas.supernet import Supernet
from mmbignas.supernet.calibration import calibrate_bn
from tests.small_classifiers import batch, big_mobilenet, classifier, cls_head, mobile_classifier, one_of
from tests.small_models import build, element, scramble
from tests.supernet.test_calibration import check, reference

A0 = dict(out_channel=[16, 16, 24, 32, 64, 112, 192, 216], depth=[1, 1, 3, 3, 3, 3, 3, 1], kernel_size=[3] * 8,
          expand_ratio=[1, 1, 4, 4, 4, 4, 6, 6])
A6 = dict(out_channel=[16, 16, 24, 32, 64, 112, 216, 224], depth=[1, 1, 3, 3, 4, 4, 6, 1],
          kernel_size=[3, 3, 3, 3, 3, 3, 5, 3], expand_ratio=[1, 1, 4, 6, 5, 4, 6, 6])


@pytest.mark.parametrize(('net', 'hidden', 'size', 'mega'), [(A0, 1792, 192, 203.4), (A6, 1984, 288, 709.0)],
                         ids=['A0', 'A6'])
def test_figures_of_attentivenas(net: dict[str, Any], hidden: int, size: int, mega: float) -> None:
    """203 and 709 MFLOPs, table 5 of the paper."""
    pytest.importorskip('mmpretrain')
    model = MODELS.build(classifier(
        dict(type='mmbignas.BigMobileNet', **net),
        cls_head(6 * net['out_channel'][-1], num_classes=1000, hidden=dict(depth=[1], out_channel=[hidden])))).eval()
    analyzer = FlopAnalyzer(model, torch.zeros(1, 3, size, size)).unsupported_ops_warnings(False)
    operators = analyzer.by_operator()
    assert (operators['conv'] + operators['linear']) / 1e6 == pytest.approx(mega, abs=.05)


# -- the network written out -----------------------------------------------------------------------------------------


def swish(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def conv_bn(state: dict[str, Tensor], x: Tensor, conv: str, norm: str, stride: int = 1) -> Tensor:
    """A convolution, dense or depthwise by the shape of its weight, and a normalisation in eval mode."""
    weight = state[f'{conv}.weight']
    x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=x.shape[1] // weight.shape[1])
    mean, var, gamma, beta = (state[f'{norm}.{name}'][:, None, None] for name in (
        'running_mean', 'running_var', 'weight', 'bias'))
    return (x - mean) / torch.sqrt(var + 1e-5) * gamma + beta


def block_by_hand(state: dict[str, Tensor], x: Tensor, stride: int) -> Tensor:
    """An inverted bottleneck in eval mode, from nothing but its state."""
    out = swish(conv_bn(state, x, 'conv1', 'bn1')) if 'conv1.weight' in state else x
    assert state['conv2.weight'].shape[:2] == (out.shape[1], 1)
    out = swish(conv_bn(state, out, 'conv2', 'bn2', stride))
    if 'se.reduce.weight' in state:
        squeezed = F.relu(out.mean((2, 3)) @ state['se.reduce.weight'].flatten(1).T + state['se.reduce.bias'])
        gate = squeezed @ state['se.expand.weight'].flatten(1).T + state['se.expand.bias']
        out = out * ((gate + 3).clamp(0, 6) / 6)[:, :, None, None]
    out = conv_bn(state, out, 'conv3', 'bn3')
    if 'shortcut.weight' in state:
        n, c, h, w = x.shape
        pooled = torch.stack([
            x[:, :, top:top + stride, left:left + stride].mean((2, 3)) for top in range(0, h, stride)
            for left in range(0, w, stride)], 2).view(n, c, out.shape[2], out.shape[3])
        return out + F.conv2d(pooled, state['shortcut.weight'])
    common = min(x.shape[1], out.shape[1])
    out[:, :common] += x[:, :common]
    return out


def part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


@pytest.mark.parametrize('strides', [(2, 1, 2, 2, 2, 1, 2, 1), (1, 1, 3, 1, 2, 2, 1, 2)])
@pytest.mark.parametrize(('first', 'final'), [(8, 6), (24, 6), (16, 0)])
def test_equals_the_network_written_out(strides: tuple[int, ...], first: int, final: float) -> None:
    net = scramble(BigMobileNet(
        [16, first, 24, 24, 32, 40, 48, 40], [1, 2, 2, 3, 1, 2, 1, 1], [5, 3, 5, 7, 3, 1, 3, 5],
        [1, 1, 4, 1, .5, 6, 1.5, 2], final_expand_ratio=final, strides=strides,
        out_indices=(0, 1, 2, 3, 4, 5, 6))).double().eval()
    assert net.layer3[1].conv2.out_channels == 24  # no expansion, squeeze-and-excitation
    assert not hasattr(net.layer3[1], 'conv1')
    assert [net.get_submodule(f'layer{stage}.0.conv2').out_channels for stage in range(1, 8)] == [
        16, {8: 32, 24: 96, 16: 64}[first], 24, 16, 192, 64, 96]  # 40 * 1.5 = 60 by 8; 24 / 2 = 12 by 8
    assert [stage for stage in range(1, 8) if net.get_submodule(f'layer{stage}.0').se is not None] == [3, 5, 6, 7]
    assert [stage for stage in range(1, 8) if net.get_submodule(f'layer{stage}.0').shortcut is None] == [1]
    state = net.state_dict()
    x = torch.randn(2, 3, 45, 49, dtype=torch.double)
    outputs = net(x)
    x = swish(conv_bn(state, x, 'stem.0', 'stem.1', strides[0]))
    for stage in range(1, 8):
        for block in range(len(getattr(net, f'layer{stage}'))):
            x = block_by_hand(part(state, f'layer{stage}.{block}.'), x, 1 if block else strides[stage])
        if stage == 7 and final:
            x = swish(conv_bn(state, x, 'final_conv.0', 'final_conv.1'))
            assert x.shape[1] == 240
        torch.testing.assert_close(outputs[stage - 1], x, rtol=1e-9, atol=1e-9)
    assert len(outputs) == 7


def test_the_last_convolution_belongs_to_the_last_feature() -> None:
    net = BigMobileNet([8] * 8, [1] * 8, out_indices=(2, 4)).eval()
    assert net.final_conv is None
    assert [feature.shape for feature in net(torch.randn(1, 3, 64, 32))] == [(1, 8, 8, 4), (1, 8, 4, 2)]


# -- initialisation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('norm', ['BN', 'mmbignas.SwitchableBatchNorm2d'])
@pytest.mark.parametrize('zero', [True, False])
def test_initialisation(norm: str, zero: bool) -> None:
    config = big_mobilenet(norm_cfg=dict(type=norm), zero_init_residual=zero,
                           conv_cfg=dict(type='mmbignas.DynamicConv2d', kernel_transform=True))
    net = build(config)
    blocks = [module for module in net.modules() if isinstance(module, BigInvertedBottleneck)]
    last = {module for block in blocks for module in block.bn3.modules()}
    assert len(blocks) == 10
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == (0 if zero and module in last else 1)).all()
            assert not module.bias.any()
        elif isinstance(module, DynamicConv2d):
            assert module.bias is None or not module.bias.any()
            assert all(torch.equal(matrix, torch.eye(len(matrix))) for matrix in module.transforms.values())
    assert list(net.layer2[0].conv2.transforms) == ['7to5', '5to3']
    assert not net.layer2[0].conv1.transforms


def test_zero_init_makes_a_block_its_shortcut() -> None:
    net, x = build(big_mobilenet()), torch.randn(4, 24, 6, 6)
    with torch.no_grad():
        assert torch.equal(net.layer1[0](x), x)
        assert torch.equal(net.layer2[0](x), net.layer2[0].shortcut(F.avg_pool2d(x, 2)))


def test_drop_path_grows_with_the_depth_of_the_largest() -> None:
    depth = element([1] * 8, [1, 1, 2, 1, 1, 2, 1, 1], 1)
    net = BigMobileNet([16] * 8, depth, drop_path_rate=0.4)
    blocks = [block for stage in range(1, 8) for block in getattr(net, f'layer{stage}')]
    rates = [getattr(block.drop_path, 'drop_prob', 0) for block in blocks]
    assert rates == pytest.approx([0.05 * index for index in range(9)])
    assert all(isinstance(block.drop_path, nn.Identity)
               for block in BigMobileNet([16] * 8, depth).modules() if isinstance(block, BigInvertedBottleneck))


def test_drop_path_drops_the_branch_of_a_sample_and_never_the_shortcut() -> None:
    block = scramble(BigMobileNet([8] * 8, [1] * 8, drop_path_rate=0.5).layer7[0])
    assert block.drop_path.drop_prob == 0.5
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    x = torch.randn(64, 8, 4, 4)
    with torch.no_grad():
        outputs, shortcut = block(x), block.shortcut(x)
        block.drop_path.eval()
        branch = block(x) - shortcut
    dropped = [torch.equal(mine, other) for mine, other in zip(outputs, shortcut)]
    assert 16 < sum(dropped) < 48
    for mine, drop, alone, other in zip(outputs, dropped, branch, shortcut):
        if not drop:
            torch.testing.assert_close(mine, 2 * alone + other, rtol=1e-5, atol=1e-5)


def test_switchable_norms_know_their_widths() -> None:
    net = build(big_mobilenet(norm_cfg=dict(type='mmbignas.SwitchableBatchNorm2d')))
    assert isinstance(net.layer2[0].bn1, SwitchableBatchNorm2d)
    assert not hasattr(net.layer1[0], 'bn1')
    assert list(net.layer1[0].bn2.narrow) == ['8', '16']  # as wide as the stem: 8 to 24
    assert list(net.layer2[0].bn1.narrow) == ['16', '24', '32', '48', '64', '72']  # 8 to 24 by 2 to 4
    assert list(net.layer2[0].bn3.narrow) == ['8']
    assert list(net.final_conv[1].narrow) == ['64']


# -- BN calibration --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('norm', ['BN', 'mmbignas.SwitchableBatchNorm2d'], ids=['BN', 'switchable'])
def test_bn_calibration(norm: str) -> None:
    """Statistics of each subnet are those of all its normalisations' inputs at once, in float64."""
    pytest.importorskip('mmpretrain')
    model = scramble(build(mobile_classifier(big_mobilenet(norm_cfg=dict(type=norm), drop_path_rate=.3)))).train()
    trained, supernet, rng = copy.deepcopy(model.state_dict()), Supernet(model), random.Random(0)
    batches = [batch([0, 3], (61, 47)), batch([1], (48, 80)), batch([2, 2, 4], (64, 64))]
    used: set[str] = set()
    for subnet in (supernet.space.min(), supernet.space.max(), *(supernet.space.sample(rng) for _ in range(8))):
        model.load_state_dict(trained)
        supernet.apply(subnet)
        before = copy.deepcopy(model)
        expected = reference(model, batches)
        calibrate_bn(model, batches)
        check(model, before, expected)
        blocks = sum(subnet['backbone']['depth'][1:])
        without = subnet['backbone']['depth'][1]  # no expansion in stage 1
        names = {name.partition('.narrow.')[0] for name in expected}
        assert len(names) == 1 + 3 * blocks - without + 1
        used.update(expected)
    assert any('.narrow.' in name for name in used) == ('Switchable' in norm)


# -- refusals --------------------------------------------------------------------------------------------------------


REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    (dict(se_ratio=.25), ['BigMobileNet.se_ratio must be a list of 7 numbers from 0 (none) to 1', 'got 0.25']),
    (dict(se_ratio=[.25] * 8), ['BigMobileNet.se_ratio', '7 numbers', 'got [0.25, ']),
    (dict(se_ratio=[0, 0, 0, 0, 0, 0, 4]),
     ['BigMobileNet.se_ratio', 'from 0 (none) to 1', 'got [0, 0, 0, 0, 0, 0, 4]']),
    (dict(projection=[False] * 7), ['BigMobileNet.projection must be True in stage 2', 'stride is 2', 'got False']),
    (dict(strides=(2, 2, 2, 2, 2, 1, 2, 1)), ['BigMobileNet.projection must be True in stage 1', 'stride is 2']),
    (dict(projection=[True] * 6), ['BigMobileNet.projection must be a list of 7 of True and False', 'got [True, ']),
    (dict(expand_ratio=one_of([1], [1], [1, 4], [4], [4], [4], [6], [6])),
     ['BigMobileNet.expand_ratio must be 1 alone', 'stage 2', 'got [1, 4]']),
    (dict(expand_ratio=element([1, .5, 4, 4, 4, 4, 6, 6], [1, 1, 4, 4, 4, 4, 6, 6], .5)),
     ['BigMobileNet.expand_ratio must be 1 alone', 'stage 1', 'got [0.5, 1]']),
    (dict(expand_ratio=one_of([1, 2], [1], [4], [4], [4], [4], [6], [6])),
     ['BigMobileNet.expand_ratio', 'stem', '[1, 2]', 'one value']),
    (dict(expand_ratio=[1, 1, 4]), ['BigMobileNet.expand_ratio', 'one value per stage (8)', '(1, 1, 4)']),
    (dict(out_channel=[16] * 7), ['BigMobileNet.out_channel', 'one value per stage (8)', '(16, 16, ']),
    (dict(depth=[1] * 9), ['BigMobileNet.depth', 'one value per stage (8)', '[1, 1, ']),
    (dict(depth=[2, 1, 3, 3, 3, 3, 3, 1]), ['BigMobileNet.depth', 'stem', '[2]', '1']),
    (dict(kernel_size=[3, 3, 3, 4, 3, 3, 3, 3]), ['BigMobileNet.kernel_size', '4', 'odd']),
    (dict(strides=(2,) * 5), ['BigMobileNet.strides', '8 integers >= 1, one per stage']),
    (dict(out_indices=(7,)), ['BigMobileNet.out_indices', '(7,)', '0 to 6']),
    (dict(final_expand_ratio=-6), ['BigMobileNet.final_expand_ratio must be a number >= 0, got -6']),
]


@pytest.mark.parametrize(('change', 'parts'), REFUSED, ids=str)
def test_refused(change: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        MODELS.build(dict(type='mmbignas.BigMobileNet', **A0 | change))
    message = str(error.value)
    assert '\n' not in message
    for part_of_message in parts:
        assert part_of_message in message
