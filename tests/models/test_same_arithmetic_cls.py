"""The contract of the package for classifiers: a supernet that computes as a subnet is that subnet's network.

See ``test_same_arithmetic.py``; here normalisations are among the options.
"""
from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from mmbignas.supernet import Supernet, subnet_config, subnet_state_dict
from tests.arithmetic import Arithmetic, run_options
from tests.models.same_network import check_same_network
from tests.models.test_same_arithmetic import subnets
from tests.small_classifiers import (
    batch,
    big_mobilenet,
    big_regnet,
    big_resnet18,
    classifier,
    cls_head,
    hidden_layers,
    labelled,
    mobile_classifier,
    one_of,
    regnet_classifier,
    resnet_classifier,
    width_up_to,
)
from tests.small_models import build, element, scramble
from tests.supernet.test_initializers import by_hand, saved, started

pytest.importorskip('mmpretrain')

NORMS = ['BN', 'mmbignas.SwitchableBatchNorm2d']
TRANSFORM = dict(type='mmbignas.DynamicConv2d', kernel_transform=True)

CLASSIFIERS = {
    'RegNet': regnet_classifier(),
    'RegNetX, kernel transform, hidden layers': classifier(
        big_regnet(conv_cfg=TRANSFORM, se_ratio=0, strides=(1, 1, 2, 2, 1), in_channels=4, out_indices=(1, 3)),
        cls_head(width_up_to(64), hidden=hidden_layers(depth=[2]))),
    'mobile network': mobile_classifier(),
    'mobile network, kernel transform': mobile_classifier(big_mobilenet(conv_cfg=TRANSFORM)),
    'mobile network, projections everywhere, no last convolution': classifier(
        big_mobilenet(projection=(True,) * 7, final_expand_ratio=0, se_ratio=(.5,) * 7, act_cfg=dict(type='HSwish'),
                      expand_ratio=element([1, .5, .5, 1.5, 2, 2, 2, 2], [1, 1.5, 2.5, 2.5, 2, 3, 3, 2], 1),
                      depth=[1, 1, 1, 2, 1, 1, 1, 1], strides=(2, 2, 1, 2, 2, 1, 1, 2)),
        cls_head(width_up_to(40))),
    'ResNet': resnet_classifier(),
    'ResNet, hidden layers': classifier(
        big_resnet18(deep_stem=False, expand_ratio=element([1, .5, .5, .5, .5], [1, 1.5, 1, 1, 1], .5, 'block_wise')),
        cls_head(width_up_to(40), hidden=hidden_layers(), act_cfg=dict(type='ReLU'))),
    'only the head is searched': classifier(
        big_resnet18(out_channel=[8, 16, 16, 24, 24], depth=[1] * 5, kernel_size=[3] * 5),
        cls_head(24, hidden=dict(depth=one_of([1, 3]), out_channel=element([8], [24], 8)))),
}


def with_norm(config: Any, norm: str) -> Any:
    config = copy.deepcopy(config)
    config.backbone.norm_cfg = dict(type=norm)
    return config


def raw(model: nn.Module, x: Tensor) -> Any:
    """All features and the scores."""
    features = model.extract_feat(x, stage='backbone')
    return [*features, model.head(model.neck(features))]


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_classifier(name: str) -> None:
    configs = {norm: with_norm(CLASSIFIERS[name], norm) for norm in NORMS}
    models = {norm: scramble(build(config)) for norm, config in configs.items()}
    drawn = subnets(Supernet(models[NORMS[0]]).space, random.Random(name))
    for (arithmetic, count, size, norm), subnet in zip(run_options(name, [(33, 40), (40, 34)], NORMS), drawn):
        config, model = configs[norm], models[norm]
        plain_config = subnet_config(config, model, subnet)
        Supernet(model).apply(subnet)
        plain = MODELS.build(plain_config)
        plain.load_state_dict(subnet_state_dict(model, plain), strict=True)
        x = torch.randn(count, config.backbone.get('in_channels', 3), *size)
        check_same_network(model, plain, x, raw, arithmetic)


@pytest.mark.parametrize('channels_last', [False, True])
def test_float16(channels_last: bool) -> None:
    """Squeeze-and-excitation and groups, with one image; a CPU takes its time for it."""
    config = CLASSIFIERS['RegNet']
    model = scramble(build(config))
    subnet = Supernet(model).apply(Supernet(model).space.sample(random.Random(0)))
    plain = MODELS.build(subnet_config(config, model, subnet))
    plain.load_state_dict(subnet_state_dict(model, plain), strict=True)
    check_same_network(model, plain, torch.randn(1, 3, 33, 40), raw, Arithmetic(torch.float16, channels_last))


@pytest.mark.parametrize('name', ['RegNet', 'mobile network', 'ResNet, hidden layers'])
def test_losses_and_predictions(name: str) -> None:
    config = CLASSIFIERS[name]
    model = scramble(build(config))
    supernet, rng = Supernet(model), random.Random(1)
    x, truth = torch.randn(3, 3, 64, 64), labelled([0, 4, 2])
    for _ in range(2):
        subnet = supernet.apply(supernet.space.sample(rng))
        plain = MODELS.build(subnet_config(config, model, subnet))
        plain.load_state_dict(subnet_state_dict(model, plain), strict=True)
        check_same_network(model, plain, x, lambda net, x: net(x, truth, mode='loss'))
        data = batch([1, 3])
        for ours, theirs in zip(model.eval().test_step(data), plain.eval().test_step(data), strict=True):
            assert torch.equal(ours.pred_score, theirs.pred_score)
            assert torch.equal(ours.pred_label, theirs.pred_label)


@pytest.mark.parametrize('norm', NORMS, ids=['BN', 'switchable'])
@pytest.mark.parametrize('name', CLASSIFIERS)
def test_subnets_start_from_their_supernet(tmp_path: Path, name: str, norm: str) -> None:
    config = with_norm(CLASSIFIERS[name], norm)
    model = scramble(build(config))
    source = model.state_dict()
    checkpoint, supernet, rng = saved(model, tmp_path / 'x.pth'), Supernet(model), random.Random(2)
    images = torch.randn(1, config.backbone.get('in_channels', 3), 48, 48)
    space = supernet.space
    for subnet in (space.max() if norm == 'BN' else space.min(), space.sample(rng)):
        plain = started(subnet_config(config, model, subnet), 'SupernetCheckpoint', checkpoint).eval()
        for key, value in plain.state_dict().items():
            if value.dim():  # not num_batches_tracked
                torch.testing.assert_close(value, by_hand(source, key, value), rtol=1e-5, atol=1e-6, msg=key)
        supernet.apply(subnet)
        model.eval()
        with torch.no_grad():
            assert all(torch.equal(a, b) for a, b in zip(raw(plain, images), raw(model, images), strict=True))


def test_the_graph_of_a_mobile_network_does_not_depend_on_the_widths() -> None:
    """Layers are there by the config alone, also where stem and first stage happen to be equally wide."""
    config = mobile_classifier(big_mobilenet(depth=[1] * 8, kernel_size=[3] * 8, expand_ratio=[1, 1, *[2] * 6]))
    model = build(config)
    space, rng = Supernet(model).space, random.Random(0)
    seen = set()
    for _ in range(20):
        subnet = space.sample(rng)
        plain = MODELS.build(subnet_config(config, model, subnet))
        stem, first = subnet['backbone']['out_channel'][:2]
        assert {name for name, _ in plain.backbone.named_modules()} == {
            name for name, _ in model.backbone.named_modules() if not name.endswith('.transforms')
            and not name.startswith('stem.0.')}
        seen.add((stem > first) - (stem < first))
    assert seen == {-1, 0, 1}
