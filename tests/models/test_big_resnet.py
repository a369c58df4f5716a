"""BigResNet: against MMDetection's ResNet and a network written out by hand; initialisation; refusals."""
from __future__ import annotations

from typing import Any

import pytest
import torch
from mmdet.models.backbones import ResNet
from mmdet.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from mmbignas import ConfigError
from mmbignas.models import BigResNet
from mmbignas.models.blocks import BigBasicBlock, middle_width, middle_widths
from mmbignas.ops import DynamicBatchNorm2d, DynamicConv2d, SwitchableBatchNorm2d
from tests.small_models import big_resnet, build, element, scramble

R18 = dict(out_channel=[8, 16, 32, 64, 128], depth=[1, 2, 2, 2, 2])


@pytest.mark.parametrize('training', [True, False])
def test_equals_mmdets_resnet_under_the_same_names(training: bool) -> None:
    """Stem half as wide as the first stage, so that MMDetection has a projection there too."""
    ours = scramble(BigResNet(**R18, expand_ratio=[1] * 5, deep_stem=True)).train(training)
    theirs = ResNet(depth=18, stem_channels=8, base_channels=16, deep_stem=True, norm_eval=False)
    theirs.stem[0] = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)  # MMDetection halves the stem's inner width
    theirs.stem[1] = nn.BatchNorm2d(8)
    theirs.stem[3] = nn.Conv2d(8, 8, 3, padding=1, bias=False)
    theirs.stem[4] = nn.BatchNorm2d(8)
    theirs.stem[6] = nn.Conv2d(8, 8, 3, padding=1, bias=False)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    theirs.train(training)
    x = torch.randn(2, 3, 64, 72)
    for mine, other in zip(ours(x), theirs(x), strict=True):
        assert torch.equal(mine, other)


def by_hand(state: dict[str, Tensor], x: Tensor, depth: list[int], strides: tuple[int, ...],
            deep: bool) -> list[Tensor]:
    """The network in eval mode, from nothing but its state."""

    def conv_bn(x: Tensor, conv: str, norm: str, stride: int = 1) -> Tensor:
        weight = state[f'{conv}.weight']
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        mean, var, gamma, beta = (state[f'{norm}.{name}'][:, None, None] for name in (
            'running_mean', 'running_var', 'weight', 'bias'))
        return (x - mean) / torch.sqrt(var + 1e-5) * gamma + beta

    for index in range(3 if deep else 1):
        x = F.relu(conv_bn(x, f'stem.{3 * index}', f'stem.{3 * index + 1}', 1 if index else strides[0]))
    x = F.max_pool2d(x, 3, 2, 1)
    outputs = []
    for stage in range(1, 5):
        for block in range(depth[stage]):
            name, stride = f'layer{stage}.{block}', 1 if block else strides[stage]
            out = F.relu(conv_bn(x, f'{name}.conv1', f'{name}.bn1', stride))
            out = conv_bn(out, f'{name}.conv2', f'{name}.bn2')
            shortcut = x if block else conv_bn(x, f'{name}.downsample.0', f'{name}.downsample.1', stride)
            x = F.relu(out + shortcut)
        outputs.append(x)
    return outputs


@pytest.mark.parametrize('deep', [True, False])
@pytest.mark.parametrize('strides', [(2, 1, 2, 2, 2), (1, 2, 1, 2, 1)])
def test_equals_the_network_written_out(deep: bool, strides: tuple[int, ...]) -> None:
    depth = [1, 2, 1, 3, 1]
    net = scramble(BigResNet([8, 16, 24, 24, 32], depth, [5, 3, 1, 7, 3], [0.5, 1, 2, 0.5, 1], strides=strides,
                             deep_stem=deep)).double().eval()
    x = torch.randn(2, 3, 40, 48, dtype=torch.double)
    outputs = net(x)
    expected = by_hand(net.state_dict(), x, depth, strides, deep)
    assert len(outputs) == 4
    for mine, other in zip(outputs, expected):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)
    for indices in ((3, ), (0, 2)):
        net.out_indices = indices
        assert [out.shape for out in net(x)] == [expected[index].shape for index in indices]


def test_shapes_and_layers_of_the_references_r18() -> None:
    net = BigResNet([64, 80, 160, 320, 640], [1, 3, 4, 4, 6], expand_ratio=[0.5, 1, 1, 1, 1], deep_stem=True)
    assert [name for name, _ in net.stem[0].named_parameters()] == ['weight']
    assert [net.stem[index].out_channels for index in (0, 3, 6)] == [32, 32, 64]
    assert [len(getattr(net, f'layer{stage}')) for stage in range(1, 5)] == [3, 4, 4, 6]
    assert net.layer2[0].conv1.weight.shape == (160, 80, 3, 3)
    assert net.layer2[0].conv1.stride == (2, 2)
    assert net.layer2[0].downsample[0].stride == (2, 2)
    assert net.layer2[1].downsample is None
    convs = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    assert len(convs) == 3 + 2 * 17 + 4
    assert all(conv.bias is None for conv in convs)


@pytest.mark.parametrize(('out', 'ratio', 'width'), [
    (64, 0.5, 32), (64, 1, 64), (48, 0.5, 24), (24, 0.5, 16), (40, 0.25, 16), (8, 0.5, 8), (80, 1.5, 120), (20, 1, 24)])
def test_middle_width(out: int, ratio: float, width: int) -> None:
    assert middle_width(out, ratio) == width
    assert width % 8 == 0


def test_middle_width_grows_with_width_and_ratio() -> None:
    """So the layers are built for the widest, and any other is a part of it."""
    for ratio in (0.25, 0.5, 0.75, 1, 1.5, 4):
        widths = [middle_width(out, ratio) for out in range(1, 600)]
        assert widths == sorted(widths)
    for out in (8, 24, 40, 96):
        widths = [middle_width(out, 0.1 * ratio) for ratio in range(1, 60)]
        assert widths == sorted(widths)
    assert middle_widths((16, 32), (0.5, 1)) == [8, 16, 32]


# -- initialisation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('norm', ['BN', 'mmbignas.SwitchableBatchNorm2d'])
@pytest.mark.parametrize('searched', [True, False])
def test_initialisation(searched: bool, norm: str) -> None:
    fixed = dict(out_channel=[64, 64, 64, 64, 64], depth=[1, 2, 1, 1, 1], kernel_size=[3] * 5)
    config = big_resnet(**(dict(out_channel=element([32] * 5, [64] * 5, 16)) if searched else fixed),
                        norm_cfg=dict(type=norm), conv_cfg=dict(type='mmbignas.DynamicConv2d', kernel_transform=True))
    net = build(config)
    last = {module for block in net.modules() if isinstance(block, BigBasicBlock) for module in block.bn2.modules()}
    norms = 0
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            norms += 1
            assert (module.weight == (0 if module in last else 1)).all()
            assert not module.bias.any()
        elif isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0]**2
            assert module.weight.std().item() == pytest.approx((2 / fan_out)**0.5, rel=0.1)
            for matrix in getattr(module, 'transforms', {}).values():
                assert torch.equal(matrix, torch.eye(len(matrix)))
    assert norms > 10
    assert last
    assert isinstance(net.layer1[0].bn2, DynamicBatchNorm2d) == searched


def test_without_zero_init_residual() -> None:
    net = build(dict(type='mmbignas.BigResNet', **R18, zero_init_residual=False))
    assert all((module.weight == 1).all() for module in net.modules() if isinstance(module, nn.BatchNorm2d))


def test_drop_path_grows_with_the_depth_of_the_largest() -> None:
    net = BigResNet([8] * 5, element([1] * 5, [1, 2, 1, 1, 1], 1), drop_path_rate=0.4)
    blocks = [block for stage in range(1, 5) for block in getattr(net, f'layer{stage}')]
    rates = [getattr(block.drop_path, 'drop_prob', 0) for block in blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert all(isinstance(block.drop_path, nn.Identity)
               for block in BigResNet(**R18).modules() if isinstance(block, BigBasicBlock))


# -- what it is built of ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(('norm', 'dynamic', 'plain'), [
    ('BN', 'DynamicBatchNorm2d', 'BatchNorm2d'), ('SyncBN', 'DynamicSyncBatchNorm2d', 'SyncBatchNorm'),
    ('mmbignas.SwitchableBatchNorm2d', 'SwitchableBatchNorm2d', 'BatchNorm2d'),
    ('mmbignas.DynamicSyncBatchNorm2d', 'DynamicSyncBatchNorm2d', 'SyncBatchNorm')])
def test_norms(norm: str, dynamic: str, plain: str) -> None:
    config = dict(norm_cfg=dict(type=norm, eps=0.01))
    supernet = BigResNet(**R18 | dict(out_channel=element([8] * 5, [16] * 5, 8)), **config)
    for network, name in ((supernet, dynamic), (BigResNet(**R18, **config), plain)):
        norms = [module for path, module in network.named_modules()
                 if isinstance(module, nn.modules.batchnorm._BatchNorm) and 'narrow' not in path]
        assert {type(module).__name__ for module in norms} == {name}
        assert {module.eps for module in norms} == {0.01}


def test_switchable_norms_know_their_widths() -> None:
    net = build(big_resnet(norm_cfg=dict(type='mmbignas.SwitchableBatchNorm2d'),
                           expand_ratio=element([0.5] * 5, [1, 1.5, 1, 1, 1], 0.5)))
    assert isinstance(net.stem[1], SwitchableBatchNorm2d)
    assert list(net.stem[1].narrow) == ['8']  # 8 and 16, by ratios 0.5 and 1
    assert list(net.layer1[0].bn1.narrow) == ['8', '16', '24']  # of 36
    assert list(net.layer1[0].bn2.narrow) == ['8', '16']
    assert list(net.layer2[0].downsample[1].narrow) == ['16', '24']


def test_every_conv_of_a_supernet_is_dynamic() -> None:
    net = build(big_resnet())
    convs = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    assert all(isinstance(conv, DynamicConv2d) for conv in convs)
    assert not any(list(conv.transforms) for conv in convs)


REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    (dict(depth=[2, 1, 1, 1, 1]), ['BigResNet.depth', 'stem', '[2]', '1']),
    (dict(depth=element([1] * 5, [2] * 5, 1)), ['BigResNet.depth', 'stem', '[1, 2]']),
    (dict(depth=[1, 0, 1, 1, 1]), ['BigResNet.depth[1]', 'an integer >= 1, got 0']),
    (dict(depth=[1, 1, 1, 1]), ['BigResNet.depth', 'one value per stage (5)', '[1, 1, 1, 1]']),
    (dict(out_channel=[8, 16]), ['BigResNet.out_channel', 'one value per stage (5)', '(8, 16)']),
    (dict(out_channel=element([8] * 5, [16] * 5, 8, 'block_wise')), ['BigResNet.out_channel', "'block_wise'"]),
    (dict(kernel_size=[3, 3, 3, 3, 2]), ['BigResNet.kernel_size', '2', 'odd']),
    (dict(kernel_size=3), ['BigResNet.kernel_size', 'list of numbers']),
    (dict(expand_ratio=[0, 1, 1, 1, 1]), ['BigResNet.expand_ratio[0]', 'a number > 0, got 0']),
    (dict(strides=(2, 2)), ['BigResNet.strides', '5 integers >= 1, one per stage', '(2, 2)']),
    (dict(out_indices=(0, 4)), ['BigResNet.out_indices', '(0, 4)', '0 to 3']),
    (dict(out_indices=()), ['BigResNet.out_indices', '()']),
    (dict(out_indices=(-1, )), ['BigResNet.out_indices', '(-1,)']),
    (dict(out_channel=element([8] * 5, [16] * 5, 8), norm_cfg=dict(type='GN', num_groups=2)),
     ['norm_cfg.type', "'GN'", 'BN', 'SyncBN', 'SwitchableBatchNorm2d']),
    (dict(out_channel=element([8] * 5, [16] * 5, 8), conv_cfg=dict(type='DCNv2')),
     ['conv_cfg.type', "'DCNv2'", 'Conv2d']),
]


@pytest.mark.parametrize(('change', 'parts'), REFUSED, ids=str)
def test_refused(change: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        MODELS.build(dict(type='mmbignas.BigResNet', **R18 | change))
    message = str(error.value)
    assert '\n' not in message
    for part in parts:
        assert part in message
