"""The config and the weights of a subnet: what is written, what is left alone, what is refused."""
from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from torch import nn

from mmbignas.models import BigResNet
from mmbignas.supernet import Supernet, subnet_config, subnet_state_dict
from tests.models.same_network import check_same_network
from tests.small_models import big_fpn, big_resnet, big_retina_head, build, element, retinanet, scramble, tower


def test_every_number_is_filled_in() -> None:
    config = retinanet(head=big_retina_head(reg_tower=tower(out_channel=element([8], [24], 8, 'block_wise'))))
    model = build(config)
    settings: dict[str, Any] = {
        'backbone': dict(depth=[1, 2, 1, 3, 1], out_channel=[16, 8, 24, 16, 24], kernel_size=[5, 3, 3, 3, 3],
                         expand_ratio=[0.5, 1, 1, 1, 1]),
        'neck': dict(depth=[3, 5], out_channel=[16, 16], kernel_size=[1, 3]),
        'bbox_head.cls_tower': dict(depth=[2], out_channel=[8], kernel_size=[3]),
        'bbox_head.reg_tower': dict(depth=[3], out_channel=[24, 8, 16], kernel_size=[3]),
    }
    written = subnet_config(config, model, Supernet(model).space.canonical(settings))
    expected = copy.deepcopy(dict(config))
    expected['backbone'].update(settings['backbone'])
    expected['neck'].update(settings['neck'], in_channels=[24, 16, 24])
    expected['bbox_head'].update(in_channels=16, cls_tower=settings['bbox_head.cls_tower'],
                                 reg_tower=settings['bbox_head.reg_tower'])
    assert written == expected


def test_the_config_can_be_written_to_a_file_and_read() -> None:
    config = retinanet()
    model = scramble(build(config))
    subnet = Supernet(model).space.sample(random.Random(3))
    text = Config(dict(model=subnet_config(config, model, subnet))).pretty_text
    plain = MODELS.build(Config.fromstring(text, '.py').model)
    plain.load_state_dict(subnet_state_dict(model, plain), strict=True)
    Supernet(model).apply(subnet)
    check_same_network(model, plain, torch.randn(2, 3, 64, 64), lambda net, x: net(x, mode='tensor'))


@pytest.mark.parametrize('as_config_dict', [True, False])
def test_the_supernets_config_is_left_alone(as_config_dict: bool) -> None:
    config: Any = retinanet()
    if not as_config_dict:
        config = config.to_dict()
    before = copy.deepcopy(config)
    model = build(config)
    written = subnet_config(config, model, Supernet(model).space.min())
    assert config == before
    written['backbone']['out_channel'][0] = 7
    written['train_cfg']['allowed_border'] = 7
    assert config == before


def test_the_model_is_left_alone() -> None:
    config = retinanet()
    model = scramble(build(config))
    supernet = Supernet(model)
    subnet = supernet.apply(supernet.space.sample(random.Random(1)))
    model.train()
    model.backbone.layer1.eval()
    model.neck.fpn_convs[0].bn.eval()
    training = {name: module.training for name, module in model.named_modules()}
    state = {name: value.clone() for name, value in model.state_dict().items()}
    active = [getattr(module, 'is_active', None) for module in model.modules()]
    hooks = [len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules()]
    rng = torch.get_rng_state(), random.getstate()
    plain = MODELS.build(subnet_config(config, model, supernet.space.min()))
    torch.set_rng_state(rng[0])  # building draws weights
    subnet_config(config, model, supernet.space.max())
    subnet_state_dict(model, plain)
    assert supernet.current == subnet
    assert {name: module.training for name, module in model.named_modules()} == training
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [getattr(module, 'is_active', None) for module in model.modules()] == active
    assert [len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules()] == hooks
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), rng[0])
    assert random.getstate() == rng[1]
    assert torch.is_grad_enabled()


def test_the_model_is_left_alone_when_the_forward_pass_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    config = retinanet()
    model = build(config).train()
    supernet = Supernet(model)
    subnet = supernet.apply(supernet.space.middle())
    monkeypatch.setattr(model.neck, 'forward', lambda inputs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        subnet_config(config, model, supernet.space.min())
    assert supernet.current == subnet
    assert all(module.training for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_images_of_another_number_of_channels() -> None:
    config = retinanet(big_resnet(in_channels=1))
    model = build(config)
    written = subnet_config(config, model, Supernet(model).space.min())
    assert written['backbone']['in_channels'] == 1
    assert written['neck']['in_channels'] == [16, 16, 24]


def test_a_wrapper_is_looked_into() -> None:
    config = retinanet()
    model = scramble(build(config))
    subnet = Supernet(model).space.sample(random.Random(0))
    wrapped = nn.DataParallel(model)
    assert subnet_config(config, wrapped, subnet) == subnet_config(config, model, subnet)
    plain = MODELS.build(subnet_config(config, model, subnet))
    state = subnet_state_dict(wrapped, plain)
    assert all(torch.equal(value, state[name]) for name, value in subnet_state_dict(model, plain).items())


def test_the_state_is_complete_and_a_copy() -> None:
    config = retinanet()
    model = scramble(build(config))
    for subnet in (Supernet(model).space.max(), Supernet(model).space.min()):
        plain = MODELS.build(subnet_config(config, model, subnet))
        before = {name: value.clone() for name, value in model.state_dict().items()}
        state = subnet_state_dict(model, plain)
        assert list(state) == list(plain.state_dict())
        for value in state.values():
            assert not value.requires_grad
            value.zero_()
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_applied_subnet_does_not_matter_for_the_state() -> None:
    config = retinanet()
    model = scramble(build(config))
    supernet = Supernet(model)
    plain = MODELS.build(subnet_config(config, model, supernet.space.middle()))
    first = subnet_state_dict(model, plain)
    supernet.apply(supernet.space.min())
    second = subnet_state_dict(model, plain)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


R18 = dict(depth=[1] * 5, kernel_size=[3] * 5)
SEARCHED = element([8] * 5, [16] * 5, 8)


@pytest.mark.parametrize(('searched', 'plain', 'part'), [
    (dict(), dict(depth=[1, 2, 1, 1, 1]), 'no module layer1.1'),
    (dict(), dict(out_channel=[16, 16, 16, 16, 24]), r'layer4.0.conv1: cannot cut \(24, 16, 3, 3\)'),
    (dict(), dict(kernel_size=[5, 3, 3, 3, 3]), r'stem.0: cannot cut \(16, 3, 5, 5\)'),
    (dict(), dict(deep_stem=True), 'stem.3|stem.0'),
    (dict(norm_cfg=dict(type='BN', affine=False)), dict(), 'no stem.1.weight'),
    (dict(norm_cfg=dict(type='BN', track_running_stats=False)), dict(), 'no stem.1.running_mean'),
    (dict(norm_cfg=dict(type='mmbignas.SwitchableBatchNorm2d')), dict(out_channel=[12] * 5), 'stem.1: .* width 12'),
])
def test_a_network_that_is_no_subnet_is_refused(searched: dict, plain: dict, part: str) -> None:
    supernet = BigResNet(out_channel=SEARCHED, **R18, **searched)
    with pytest.raises(ValueError, match=part):
        subnet_state_dict(supernet, BigResNet(**dict(R18, out_channel=[16] * 5) | plain))


def test_a_bias_that_the_supernet_lacks_is_refused() -> None:
    supernet = MODELS.build(big_fpn())
    plain = MODELS.build(big_fpn(out_channel=[8, 8], norm_cfg=None))
    with pytest.raises(ValueError, match='no lateral_convs.0.conv.bias'):
        subnet_state_dict(supernet, plain)


class WithPlainLayer(nn.Module):
    """A model of which not everything is dynamic."""

    def __init__(self, out_channel: Any, classes: int) -> None:
        super().__init__()
        self.backbone = BigResNet(out_channel, **R18)
        self.fc = nn.Linear(4, classes)


def test_other_entries_are_copied() -> None:
    supernet = WithPlainLayer(SEARCHED, 3)
    state = subnet_state_dict(supernet, WithPlainLayer([8] * 5, 3))
    assert torch.equal(state['fc.weight'], supernet.fc.weight)
    state['fc.weight'].zero_()
    assert supernet.fc.weight.any()


def test_other_entries_must_have_equal_shapes() -> None:
    with pytest.raises(ValueError, match=r'fc.weight has shape \(3, 4\) in the supernet, but \(5, 4\)'):
        subnet_state_dict(WithPlainLayer(SEARCHED, 3), WithPlainLayer([8] * 5, 5))
