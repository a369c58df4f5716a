"""BigRegNet: against MMPretrain's RegNet, published figures and a network written out by hand; refusals."""
from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.analysis import FlopAnalyzer
from torch import Tensor, nn
from torch.nn import functional as F

from mmbignas import ConfigError
from mmbignas.models import BigRegNet
from mmbignas.models.blocks import BigRegNetBottleneck
from mmbignas.ops import DynamicConv2d, SwitchableBatchNorm2d
from tests.small_classifiers import big_regnet, classifier, cls_head, one_of
from tests.small_models import build, element, scramble

X800 = dict(out_channel=[32, 64, 128, 288, 672], depth=[1, 1, 3, 7, 5])


@pytest.mark.parametrize('training', [True, False])
def test_equals_mmpretrains_regnetx_800mf(training: bool) -> None:
    pytest.importorskip('mmpretrain')
    ours = scramble(MODELS.build(classifier(dict(type='mmbignas.BigRegNet', **X800), cls_head(672))))
    theirs = MODELS.build(classifier(dict(type='mmpretrain.RegNet', arch='regnetx_800mf'),
                                     dict(type='mmpretrain.LinearClsHead', num_classes=5, in_channels=672)))
    theirs.load_state_dict({name.replace('.stem.0.', '.conv1.').replace('.stem.1.', '.bn1.'): value
                            for name, value in ours.state_dict().items()}, strict=True)
    ours.train(training)
    theirs.train(training)
    x = torch.randn(2, 3, 97, 64)
    features, expected = ours.extract_feat(x, stage='backbone'), theirs.extract_feat(x, stage='backbone')
    assert [feature.shape for feature in features] == [(2, 672, 4, 2)]
    assert all(torch.equal(mine, other) for mine, other in zip(features, expected, strict=True))
    assert torch.equal(ours(x), theirs(x))


def test_figures_of_regnetx_800mf() -> None:
    """800 MFLOPs and 7.3 M parameters, table 6 of the paper."""
    pytest.importorskip('mmpretrain')
    net = MODELS.build(classifier(dict(type='mmbignas.BigRegNet', **X800), cls_head(672, num_classes=1000))).eval()
    operators = FlopAnalyzer(net, torch.zeros(1, 3, 224, 224)).unsupported_ops_warnings(False).by_operator()
    assert operators['conv'] + operators['linear'] == 799_699_712
    assert sum(parameter.numel() for parameter in net.parameters()) == 7_259_656


def test_equals_torchvisions_regnety_800mf() -> None:
    """With squeeze-and-excitation; parameters correspond in their order, but for the projection, which comes first."""
    models = pytest.importorskip('torchvision.models')
    ours = scramble(BigRegNet([32, 64, 144, 320, 784], [1, 1, 3, 8, 2], se_ratio=.25)).eval()
    theirs = models.regnet_y_800mf(weights=None).eval()
    assert sum(own.numel() for own in ours.parameters()) + 785 * 1000 == 6_432_512
    parts = {'proj.0': 'downsample.0', 'proj.1': 'downsample.1', 'f.a.0': 'conv1', 'f.a.1': 'bn1', 'f.b.0': 'conv2',
             'f.b.1': 'bn2', 'f.se.fc1': 'se.reduce', 'f.se.fc2': 'se.expand', 'f.c.0': 'conv3', 'f.c.1': 'bn3'}
    state = {}
    for name in theirs.state_dict():
        layer, _, leaf = name.rpartition('.')
        place = re.match(r'trunk_output\.block(\d)\.block\d-(\d+)\.(.*)', layer)
        mine = f'layer{place[1]}.{place[2]}.{parts[place[3]]}.{leaf}' if place else name
        if mine in ours.state_dict():
            state[name] = ours.state_dict()[mine]
    assert len(state) == len(ours.state_dict())
    theirs.load_state_dict(state, strict=False)
    x = torch.randn(2, 3, 97, 64)
    assert torch.equal(ours(x)[0], theirs.trunk_output(theirs.stem(x)))


def by_hand(state: dict[str, Tensor], x: Tensor, strides: tuple[int, ...], group_width: list[int]) -> list[Tensor]:
    """The network in eval mode, from nothing but its state, every group of channels by itself."""

    def conv_bn(x: Tensor, conv: str, norm: str, stride: int = 1, width: int | None = None) -> Tensor:
        kernels = state[f'{conv}.weight'].split(width) if width else [state[f'{conv}.weight']]
        inputs = x.split(width, 1) if width else [x]
        x = torch.cat([F.conv2d(part, weight, stride=stride, padding=weight.shape[-1] // 2)
                       for part, weight in zip(inputs, kernels, strict=True)], 1)
        mean, var, gamma, beta = (state[f'{norm}.{name}'][:, None, None] for name in (
            'running_mean', 'running_var', 'weight', 'bias'))
        return (x - mean) / torch.sqrt(var + 1e-5) * gamma + beta

    def excited(x: Tensor, name: str) -> Tensor:
        if f'{name}.reduce.weight' not in state:
            return x
        pooled = x.mean((2, 3))
        pooled = F.relu(pooled @ state[f'{name}.reduce.weight'].flatten(1).T + state[f'{name}.reduce.bias'])
        gate = pooled @ state[f'{name}.expand.weight'].flatten(1).T + state[f'{name}.expand.bias']
        return x / (1 + torch.exp(-gate))[:, :, None, None]

    x = F.relu(conv_bn(x, 'stem.0', 'stem.1', strides[0]))
    outputs = []
    for stage in range(1, 5):
        block = 0
        while (name := f'layer{stage}.{block}') + '.conv1.weight' in state:
            stride = 1 if block else strides[stage]
            out = F.relu(conv_bn(x, f'{name}.conv1', f'{name}.bn1'))
            out = F.relu(conv_bn(out, f'{name}.conv2', f'{name}.bn2', stride, group_width[stage]))
            out = conv_bn(excited(out, f'{name}.se'), f'{name}.conv3', f'{name}.bn3')
            shortcut = x if block else conv_bn(x, f'{name}.downsample.0', f'{name}.downsample.1', stride)
            x = F.relu(out + shortcut)
            block += 1
        outputs.append(x)
    return outputs


@pytest.mark.parametrize('se_ratio', [0, .25, 1])
@pytest.mark.parametrize('strides', [(2, 2, 2, 2, 2), (1, 2, 1, 2, 1)])
def test_equals_the_network_written_out(se_ratio: float, strides: tuple[int, ...]) -> None:
    group_width, depth = [16, 4, 1, 8, 48], [1, 2, 1, 3, 1]
    net = scramble(BigRegNet([8, 16, 24, 32, 32], depth, group_width, [5, 3, 1, 7, 3], [1, 2, .5, 1, 1.5],
                             se_ratio, strides=strides, out_indices=(0, 1, 2, 3))).double().eval()
    assert [net.get_submodule(f'layer{stage}.0.conv1').out_channels for stage in range(1, 5)] == [32, 16, 32, 48]
    assert [net.get_submodule(f'layer{stage}.0.conv2').groups for stage in range(1, 5)] == [8, 16, 4, 1]
    if se_ratio:
        squeezed = [net.get_submodule(f'layer{stage}.0.se.reduce').out_channels for stage in range(1, 5)]
        assert squeezed == ([8, 16, 24, 32] if se_ratio == 1 else [2, 4, 6, 8])  # of the blocks' inputs
    x = torch.randn(2, 3, 45, 48, dtype=torch.double)
    outputs, expected = net(x), by_hand(net.state_dict(), x, strides, group_width)
    for mine, other in zip(outputs, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)
    net.out_indices = (0, 2)
    assert [output.shape for output in net(x)] == [expected[0].shape, expected[2].shape]


# -- initialisation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('norm', ['BN', 'mmbignas.SwitchableBatchNorm2d'])
@pytest.mark.parametrize('searched', [True, False])
@pytest.mark.parametrize('zero', [True, False])
def test_initialisation(searched: bool, norm: str, zero: bool) -> None:
    widths = element([32] * 5, [64] * 5, 32) if searched else [64] * 5
    net = build(dict(type='mmbignas.BigRegNet', out_channel=widths, depth=[1, 2, 1, 1, 1], se_ratio=.5,
                     norm_cfg=dict(type=norm), zero_init_residual=zero))
    blocks = [module for module in net.modules() if isinstance(module, BigRegNetBottleneck)]
    assert len(blocks) == 5
    last = {module for block in blocks for module in block.bn3.modules()}
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == (1 + 3 * 5 + 4) * (2 if searched and 'Switchable' in norm else 1)
    for module in norms:
        assert (module.weight == (0 if zero and module in last else 1)).all()
        assert not module.bias.any()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0]**2
            assert module.weight.std().item() == pytest.approx((2 / fan_out)**0.5, rel=0.15)
            assert module.bias is None or not module.bias.any()


def test_drop_path_grows_with_the_depth_of_the_largest() -> None:
    net = BigRegNet([16] * 5, element([1] * 5, [1, 2, 1, 1, 1], 1), drop_path_rate=0.4)
    blocks = [block for stage in range(1, 5) for block in getattr(net, f'layer{stage}')]
    assert [getattr(block.drop_path, 'drop_prob', 0) for block in blocks] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


# -- what it is built of ---------------------------------------------------------------------------------------------


def test_layers_of_a_supernet() -> None:
    net = build(big_regnet(norm_cfg=dict(type='mmbignas.SwitchableBatchNorm2d')))
    assert all(isinstance(module, DynamicConv2d) for module in net.modules() if isinstance(module, nn.Conv2d))
    block = net.layer1[0]  # 16 to 32 channels, ratios 0.5 to 2
    assert isinstance(block.bn1, SwitchableBatchNorm2d)
    assert list(block.bn1.narrow) == list(block.bn2.narrow) == ['8', '16', '24', '32', '48']
    assert list(block.bn3.narrow) == list(block.downsample[1].narrow) == ['16']
    assert block.conv2.weight.shape == (64, 8, 3 + 2, 3 + 2)
    assert block.se.reduce.weight.shape == (4, 64, 1, 1)  # a quarter of 16 channels


def test_settings_reach_the_layers() -> None:
    net = build(big_regnet())
    settings = net.search_space.canonical(dict(
        out_channel=[8, 32, 16, 48, 32], depth=[1, 2, 1, 1, 1], group_width=[8, 4, 2, 8, 1],
        kernel_size=[3, 3, 5, 3, 7, 5], expand_ratio=[1, 1.5, .5, 1, 1.5, .5]))
    net.apply_subnet(settings)
    shapes = {}
    for name, module in net.named_modules():
        if isinstance(module, DynamicConv2d):
            module.register_forward_pre_hook(lambda module, args, name=name: shapes.update(
                {name: module.plain_shapes(args[0].shape)['weight']}))
    net.eval()(torch.randn(1, 3, 32, 32))
    grouped = [shapes[name] for name in shapes if name.endswith('.conv2')]
    assert grouped == [(48, 4, 3, 3), (16, 4, 5, 5), (16, 2, 3, 3), (72, 8, 7, 7), (16, 1, 5, 5)]
    assert [shapes[f'layer{stage}.0.se.reduce'] for stage in range(1, 5)] == [
        (2, 48, 1, 1), (8, 16, 1, 1), (4, 72, 1, 1), (12, 16, 1, 1)]  # of 8, 32, 16 and 48 channels


# -- refusals --------------------------------------------------------------------------------------------------------


REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    (dict(group_width=[16, 16, 16, 64, 16]), ['BigRegNet.group_width', 'stage 3', 'a divisor', '[288]', 'got 64']),
    (dict(group_width=one_of([16], [16, 24], [16], [16], [16])),
     ['BigRegNet.group_width', 'stage 1', '[64]', 'got 24']),
    (dict(out_channel=element([32, 64, 128, 288, 672], [32, 72, 128, 288, 672], 8)),
     ['BigRegNet.group_width', 'stage 1', '[64, 72]', 'got 16']),
    (dict(expand_ratio=[1, 1, 1, .25, 1]), ['BigRegNet.group_width', 'stage 3', '[72]', 'expand_ratio', 'got 16']),
    (dict(group_width=[16, 128, 16, 16, 16]), ['BigRegNet.group_width', 'stage 1', '[64]', 'got 128']),
    (dict(group_width=[16, 16, 16, 16, 1.5]), ['BigRegNet.group_width[4]', 'an integer >= 1, got 1.5']),
    (dict(group_width=16), ['BigRegNet.group_width', '16', 'list of numbers']),
    (dict(group_width=[16] * 4), ['BigRegNet.group_width', 'one value per stage (5)', '(16, 16, 16, 16)']),
    (dict(group_width=element([8, 8, 8, 8, 8], [16, 16, 16, 16, 16], 8)),
     ['BigRegNet.group_width', 'stem', '[8, 16]', 'one value']),
    (dict(group_width=one_of([16], [16], [16], [8, 16], [16], strategy='block_wise')),
     ['BigRegNet.group_width', "'block_wise'", 'kernel_size, expand_ratio']),
    (dict(expand_ratio=element([.5] * 5, [1] * 5, .5)), ['BigRegNet.expand_ratio', 'stem', '[0.5, 1]', 'one value']),
    (dict(se_ratio=1.5), ['BigRegNet.se_ratio must be a number from 0 to 1, got 1.5']),
    (dict(depth=[2, 1, 1, 1, 1]), ['BigRegNet.depth', 'stem', '[2]', '1']),
    (dict(depth=[1, 1, 1, 1]), ['BigRegNet.depth', 'one value per stage (5)', '[1, 1, 1, 1]']),
    (dict(out_channel=[32, 64]), ['BigRegNet.out_channel', 'one value per stage (5)', '(32, 64)']),
    (dict(kernel_size=[3, 3, 3, 3, 2]), ['BigRegNet.kernel_size', '2', 'odd']),
    (dict(strides=(2, 2)), ['BigRegNet.strides', '5 integers >= 1, one per stage', '(2, 2)']),
    (dict(out_indices=(4,)), ['BigRegNet.out_indices', '(4,)', '0 to 3']),
    (dict(out_channel=element([32, 64, 128, 288, 672], [32, 64, 128, 288, 688], 16), norm_cfg=dict(type='GN')),
     ['norm_cfg.type', "'GN'", 'SwitchableBatchNorm2d']),
]


@pytest.mark.parametrize(('change', 'parts'), REFUSED, ids=str)
def test_refused(change: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        MODELS.build(dict(type='mmbignas.BigRegNet', **X800 | change))
    message = str(error.value)
    assert '\n' not in message
    for part in parts:
        assert part in message
