"""The contract of the package: a supernet that computes as a subnet is that subnet's network, to the last bit.

Each network is tried with as many subnets as it takes for all pairs of options to meet: precision, memory format,
number of images and image size. The first two subnets are the largest and the smallest.
"""
from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from mmbignas.ops import DynamicBatchNorm2d, DynamicConv2d, SwitchableBatchNorm2d
from mmbignas.supernet import Supernet, live_modules, subnet_config, subnet_state_dict
from tests.arithmetic import run_options
from tests.models.same_network import check_same_network, relu_features
from tests.small_models import (
    batch,
    big_fpn,
    big_resnet,
    big_retina_head,
    build,
    element,
    retinanet,
    samples,
    scramble,
    tower,
)

SWITCHABLE = dict(type='mmbignas.SwitchableBatchNorm2d')
TRANSFORM = dict(type='mmbignas.DynamicConv2d', kernel_transform=True)
BLOCK_WISE = dict(
    kernel_size=element([3] * 5, [7, 3, 5, 7, 3], 2, 'block_wise'),
    expand_ratio=element([0.5] * 5, [1, 1.5, 1, 0.5, 1], 0.5, 'block_wise'))

BACKBONES = {
    'deep stem, block-wise': big_resnet(**BLOCK_WISE, in_channels=4),
    'plain stem, ordered': big_resnet(
        deep_stem=False, out_indices=(0, 3), strides=(1, 1, 2, 1, 2),
        out_channel=element([8, 8, 16, 16, 24], [16, 24, 32, 32, 40], [8, 8, 8, 16, 16], 'ordered_stage_wise'),
        depth=element([1, 1, 1, 1, 1], [1, 1, 2, 3, 3], 1, 'ordered_stage_wise_depth'),
        kernel_size=element([1] * 5, [5] * 5, 2, 'ordered_block_wise')),
    'kernel transform': big_resnet(**BLOCK_WISE, conv_cfg=TRANSFORM),
    'switchable BN': big_resnet(**BLOCK_WISE, norm_cfg=SWITCHABLE),
    'net-wise, fixed kernels per block': big_resnet(
        out_channel=dict(space=dict(dynamic_range=[[8, 16]] * 5), sample_strategy='net_wise'), depth=[1, 2, 1, 2, 1],
        kernel_size=[5, 3, 5, 1, 3, 7, 3]),
    'all at one index': big_resnet(
        **{name: dict(space=dict(dynamic_range=choices), sample_strategy='net_wise_index') for name, choices in dict(
            out_channel=[[8, 16, 24]] * 5, depth=[[1], [1, 2, 3], [1], [1, 2, 3], [2]],
            kernel_size=[[3], [3, 5, 7], [3, 5, 7], [3], [1, 3, 5]]).items()}),
}


@pytest.mark.parametrize('config', BACKBONES.values(), ids=BACKBONES)
def test_backbone(config: dict[str, Any]) -> None:
    supernet = scramble(build(config))
    rng = random.Random(0)
    options = run_options(str(config), [(33, 40), (40, 34)])
    for (arithmetic, count, size), settings in zip(options, subnets(supernet.search_space, rng)):
        supernet.apply_subnet(settings)
        plain = MODELS.build({**config, **settings})
        plain.load_state_dict(subnet_state_dict(supernet, plain), strict=True)
        x = torch.randn(count, config.get('in_channels', 3), *size)
        check_same_network(supernet, plain, x, arithmetic=arithmetic)


def subnets(space: Any, rng: random.Random) -> Iterator[Any]:
    """The largest, the smallest, then random ones."""
    yield from (space.max(), space.min())
    while True:
        yield space.sample(rng)


# Of the finest of five levels. The coarsest has more than one pixel, so that a batch normalisation can be trained with
# one image.
FEATURE_SIZES = [20, 24]
FPN_KERNELS = dict(kernel_size=element([1, 3], [3, 7], 2, 'block_wise'))
NECKS = {
    'on output': big_fpn(),
    'on input, block-wise': big_fpn(
        **FPN_KERNELS, add_extra_convs='on_input', depth=[3, 5], act_cfg=dict(type='ReLU', inplace=False),
        out_channel=element([8, 16], [24, 24], 8)),
    'kernel transform, no norm': big_fpn(**FPN_KERNELS, norm_cfg=None, conv_cfg=TRANSFORM),
    'switchable BN, three levels': big_fpn(**FPN_KERNELS, norm_cfg=SWITCHABLE, num_outs=3),
}


@pytest.mark.parametrize('config', NECKS.values(), ids=NECKS)
def test_neck(config: dict[str, Any]) -> None:
    supernet = scramble(build(config))
    rng = random.Random(0)
    options = run_options(str(config), FEATURE_SIZES)
    for (arithmetic, count, size), settings in zip(options, subnets(supernet.search_space, rng)):
        supernet.apply_subnet(settings)
        widths = [rng.choice([width, width // 2]) for width in config['in_channels']]
        plain = MODELS.build({**config, **settings, 'in_channels': widths})
        plain.load_state_dict(subnet_state_dict(supernet, plain), strict=True)
        check_same_network(supernet, plain, relu_features(widths, size, count), arithmetic=arithmetic)


BLOCK_TOWER = tower(
    out_channel=element([8], [24], 8, 'block_wise'), kernel_size=element([1], [5], 2, 'ordered_block_wise'))
HEADS = {
    'tied': big_retina_head(),
    'tied, block-wise': big_retina_head(cls_tower=BLOCK_TOWER),
    'untied': big_retina_head(cls_tower=BLOCK_TOWER, reg_tower=tower(depth=element([2], [4], 1))),
    'no norm': big_retina_head(cls_tower=BLOCK_TOWER, norm_cfg=None),
    'kernel transform': big_retina_head(cls_tower=BLOCK_TOWER, conv_cfg=TRANSFORM),
    'switchable BN': big_retina_head(cls_tower=BLOCK_TOWER, norm_cfg=SWITCHABLE),
}


@pytest.mark.parametrize('config', HEADS.values(), ids=HEADS)
def test_head(config: dict[str, Any]) -> None:
    supernet = scramble(build(config))
    facade, rng = Supernet(supernet), random.Random(0)
    options = run_options(str(config), FEATURE_SIZES)
    for (arithmetic, count, size), subnet in zip(options, subnets(facade.space, rng)):
        facade.apply(subnet)
        width = rng.choice([8, 12, 24])
        plain = MODELS.build({**config, **subnet.to_dict(), 'in_channels': width})
        plain.load_state_dict(subnet_state_dict(supernet, plain), strict=True)
        check_same_network(supernet, plain, relu_features([width] * 5, size, count), arithmetic=arithmetic)


DETECTORS = {
    'tied': retinanet(big_resnet(**BLOCK_WISE)),
    'untied, plain stem, on input': retinanet(
        BACKBONES['plain stem, ordered'] | dict(out_indices=(1, 2, 3)), big_fpn(add_extra_convs='on_input'),
        HEADS['untied']),
    'kernel transform': retinanet(
        BACKBONES['kernel transform'], big_fpn(**FPN_KERNELS, conv_cfg=TRANSFORM), HEADS['kernel transform']),
    'switchable BN': retinanet(BACKBONES['switchable BN'], big_fpn(norm_cfg=SWITCHABLE), HEADS['switchable BN']),
    'only the neck is searched': retinanet(
        big_resnet(out_channel=[8, 16, 16, 24, 24], depth=[1] * 5, kernel_size=[3] * 5),
        big_fpn(in_channels=[16, 24, 24]),
        big_retina_head(cls_tower=tower(depth=[2], out_channel=dict(space=dict(min=[16], max=[16]))))),
}


def raw(model: nn.Module, x: Tensor) -> Any:
    return model(x, mode='tensor')


@pytest.mark.parametrize('config', DETECTORS.values(), ids=DETECTORS)
def test_detector(config: dict[str, Any]) -> None:
    config = copy.deepcopy(config)
    # With a fifth level, images would have to be larger for its second pixel.
    config.neck.num_outs, config.bbox_head.anchor_generator.strides = 4, [8, 16, 32, 64]
    model = scramble(build(config))
    supernet, rng = Supernet(model), random.Random(0)
    sizes = [(96, 65), (65, 96)] if config.backbone.deep_stem else [(40, 33), (33, 40)]
    for (arithmetic, count, size), subnet in zip(run_options(str(config), sizes), subnets(supernet.space, rng)):
        plain_config = subnet_config(config, model, subnet)
        supernet.apply(subnet)
        plain = MODELS.build(plain_config)
        plain.load_state_dict(subnet_state_dict(model, plain), strict=True)
        check_same_network(model, plain, torch.randn(count, 3, *size), raw, arithmetic)


@pytest.mark.parametrize('config', [*DETECTORS.values()][:2], ids=['tied', 'untied'])
def test_detector_losses_and_predictions(config: dict[str, Any]) -> None:
    model = scramble(build(config))
    supernet, rng = Supernet(model), random.Random(1)
    x, truth = torch.randn(2, 3, 64, 64), samples([[[4., 6., 40., 50.], [20., 8., 62., 60.]], [[10., 10., 54., 44.]]])
    for _ in range(2):
        subnet = supernet.apply(supernet.space.sample(rng))
        plain = MODELS.build(subnet_config(config, model, subnet))
        plain.load_state_dict(subnet_state_dict(model, plain), strict=True)
        check_same_network(model, plain, x, lambda net, x: net(x, truth, mode='loss'))
        data = batch()
        for ours, theirs in zip(model.eval().test_step(data), plain.eval().test_step(data)):
            assert torch.equal(ours.pred_instances.bboxes, theirs.pred_instances.bboxes)
            assert torch.equal(ours.pred_instances.scores, theirs.pred_instances.scores)
            assert torch.equal(ours.pred_instances.labels, theirs.pred_instances.labels)


def calls(model: nn.Module, x: Tensor) -> list[str]:
    """The layers without children, in the order in which they are called."""
    names: list[str] = []
    handles = [module.register_forward_pre_hook(lambda module, inputs, name=name: names.append(name))
               for name, module in model.named_modules()
               if isinstance(module, (DynamicConv2d, DynamicBatchNorm2d, SwitchableBatchNorm2d, nn.ReLU, nn.Identity))]
    with torch.no_grad():
        raw(model, x)
    for handle in handles:
        handle.remove()
    return names


def test_the_graph_is_that_of_the_largest_subnet_less_the_blocks_left_out() -> None:
    model = build(DETECTORS['tied']).eval()
    supernet, rng, x = Supernet(model), random.Random(0), torch.randn(1, 3, 64, 64)
    supernet.apply(supernet.space.max())
    largest = calls(model, x)
    assert any('layer4.0.downsample' in name for name in largest)
    lengths = set()
    for _ in range(12):
        supernet.apply(supernet.space.sample(rng))
        live = {name for name, _ in live_modules(model)}
        called = calls(model, x)
        assert called == [name for name in largest if name in live]
        lengths.add(len(called))
    assert len(lengths) > 3


def test_projection_of_each_stage_does_not_depend_on_the_widths() -> None:
    """Also where a block's widest input and output are equal, as in a plain ResNet's first stage."""
    config = big_resnet(out_channel=element([8] * 5, [16] * 5, 8), depth=[1, 2, 2, 1, 1])
    plain = MODELS.build({**config, 'out_channel': [8] * 5, 'kernel_size': [3] * 5})
    for backbone in (build(config), plain):
        found = [[block.downsample is not None for block in getattr(backbone, f'layer{stage}')]
                 for stage in range(1, 5)]
        assert found == [[True, False], [True, False], [True], [True]]
