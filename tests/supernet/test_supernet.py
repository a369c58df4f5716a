"""The facade: which modules are searched, what is applied, what is refused; the walk over what is in use."""
from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmbignas import ConfigError
from mmbignas.models import BigResNet
from mmbignas.space import Subnet
from mmbignas.supernet import Searchable, Supernet, live_modules, parse_choices
from tests.models.same_network import tensors
from tests.small_models import big_resnet, big_retina_head, build, retinanet, scramble, tower

X = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def outputs(model: nn.Module) -> list[Tensor]:
    model.eval()
    return tensors(model(X, mode='tensor'))


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_searchable_modules_and_their_paths() -> None:
    model = build(retinanet())
    space = Supernet(model).space
    assert list(space.modules) == ['backbone', 'neck', 'bbox_head.cls_tower']
    assert space.modules['backbone'] is model.backbone.search_space
    untied = Supernet(build(retinanet(head=big_retina_head(reg_tower=tower())))).space
    assert list(untied.modules) == ['backbone', 'neck', 'bbox_head.cls_tower', 'bbox_head.reg_tower']
    assert list(Supernet(model.backbone).space.modules) == ['']
    assert isinstance(model.backbone, Searchable)
    assert not isinstance(nn.Conv2d(1, 1, 1), Searchable)


def test_a_model_without_a_searchable_module_is_refused() -> None:
    with pytest.raises(ConfigError, match='Sequential has no searchable module.*mmbignas.BigResNet'):
        Supernet(nn.Sequential(nn.Conv2d(1, 1, 1)))


def test_current_is_the_largest_until_another_is_applied() -> None:
    model = scramble(build(retinanet()))
    supernet = Supernet(model)
    assert supernet.current == supernet.space.max()
    as_built = outputs(model)
    subnet = supernet.space.min()
    assert supernet.apply(subnet) == subnet
    assert supernet.current == subnet
    assert not same(outputs(model), as_built)
    supernet.apply(supernet.space.max())
    assert same(outputs(model), as_built)


def test_the_path_to_a_subnet_does_not_matter() -> None:
    """What was applied before leaves nothing behind."""
    model = scramble(build(retinanet()))
    supernet, rng = Supernet(model), random.Random(0)
    subnets = [supernet.space.sample(rng) for _ in range(6)]
    results = {}
    for subnet in (*subnets, *reversed(subnets)):
        supernet.apply(subnet)
        result = outputs(model)
        assert same(results.setdefault(subnet, result), result)


def test_applying_changes_no_state() -> None:
    model = build(retinanet())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modules = list(model.modules())
    Supernet(model).apply(Supernet(model).space.min())
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert list(model.modules()) == modules


def test_settings_in_any_form() -> None:
    supernet = Supernet(build(retinanet()))
    minimum = supernet.space.min().to_dict()
    given: dict[str, Any] = copy.deepcopy(minimum)
    given['backbone']['kernel_size'] = [3] * 5
    given['neck'] = dict(out_channel=[8] * 8)
    assert supernet.apply(given) == supernet.space.min() == supernet.current
    assert isinstance(supernet.apply(given), Subnet)


def test_facades_of_one_model_agree() -> None:
    model = build(retinanet())
    first, second = Supernet(model), Supernet(model)
    first.apply(first.space.min())
    assert second.current == second.space.min()


def bad_settings(space: Any) -> dict[str, Any]:
    good = space.min().to_dict()
    tower_too_deep = copy.deepcopy(good)
    tower_too_deep['bbox_head.cls_tower']['depth'] = [4]
    return {
        'value in the last module': tower_too_deep,
        'module missing': {path: good[path] for path in ('backbone', 'neck')},
        'unknown module': good | dict(rpn_head=dict(depth=[1])),
        'no settings': None,
        'subnet of another space': Supernet(build(retinanet(big_resnet(out_channel=[4, 8, 8, 8, 8])))).space.max(),
        'not in canonical form': Subnet(tower_too_deep),
    }


@pytest.mark.parametrize('case', ['value in the last module', 'module missing', 'unknown module', 'no settings',
                                  'subnet of another space', 'not in canonical form'])
def test_what_does_not_fit_is_refused_and_the_model_stays_as_it_was(case: str) -> None:
    model = scramble(build(retinanet()))
    supernet = Supernet(model)
    subnet = supernet.apply(supernet.space.middle())
    before = outputs(model)
    with pytest.raises(ConfigError):
        supernet.apply(bad_settings(supernet.space)[case])
    assert supernet.current == subnet
    assert same(outputs(model), before)


def test_the_refusal_names_module_element_stage_value_and_allowed_values() -> None:
    supernet = Supernet(build(retinanet()))
    settings = supernet.space.max().to_dict()
    settings['backbone']['out_channel'][2] = 20
    with pytest.raises(ConfigError) as error:
        supernet.apply(settings)
    assert str(error.value) == 'backbone.out_channel must be one of [16, 24, 32] in stage 2, got 20'


def test_a_deep_copy_is_a_supernet_of_its_own() -> None:
    model = scramble(build(retinanet()))
    supernet = Supernet(model)
    subnet = supernet.apply(supernet.space.middle())
    before = outputs(model)
    twin = copy.deepcopy(model)
    copied = Supernet(twin)
    assert copied.current == subnet
    assert same(outputs(twin), before)
    copied.apply(copied.space.min())
    assert supernet.current == subnet
    assert same(outputs(model), before)
    supernet.apply(supernet.space.min())
    assert same(outputs(twin), outputs(model))
    with torch.no_grad():
        twin.bbox_head.reg_tower[0].conv.weight.zero_()
    assert not same(outputs(twin), outputs(model))


def test_a_wrapper_is_looked_into() -> None:
    model = build(retinanet())
    supernet = Supernet(nn.DataParallel(model))
    assert supernet.model is model
    assert list(supernet.space.modules) == ['backbone', 'neck', 'bbox_head.cls_tower']
    supernet.apply(supernet.space.min())
    assert Supernet(model).current == supernet.space.min()


# -- what is in use --------------------------------------------------------------------------------------------------


def test_live_modules() -> None:
    model = build(retinanet())
    supernet, rng = Supernet(model), random.Random(0)
    everything = dict(model.named_modules())
    assert dict(live_modules(model)) == everything
    for _ in range(8):
        subnet = supernet.apply(supernet.space.sample(rng))
        live = dict(live_modules(model))
        assert all(everything[name] is module for name, module in live.items())
        left_out = [f'backbone.layer{stage}.{block}' for stage in range(1, 5)
                    for block in range(subnet['backbone']['depth'][stage], 3)]
        left_out += [f'bbox_head.{kind}_tower.{block}' for kind in ('cls', 'reg')
                     for block in range(subnet['bbox_head.cls_tower']['depth'][0], 3)]
        expected = [name for name in everything
                    if not any(name == block or name.startswith(f'{block}.') for block in left_out)]
        assert list(live) == expected
    supernet.apply(supernet.space.max())
    assert dict(live_modules(model)) == everything


def test_live_modules_below_a_prefix() -> None:
    net = BigResNet([8] * 5, [1, 1, 1, 1, 1])
    names = [name for name, _ in live_modules(net.layer1, 'backbone.layer1')]
    assert names[:2] == ['backbone.layer1', 'backbone.layer1.0']
    net.layer1[0].is_active = False
    assert [name for name, _ in live_modules(net.layer1)] == ['']


def test_a_name_that_collides_with_a_generated_one_is_refused():
    space = Supernet(build(retinanet())).space
    own = dict(name='random0', subnet_settings=space.min().to_dict())
    with pytest.raises(ConfigError, match=r"val_cfg\.subnets: 'random0' names 2 subnets; give names"):
        parse_choices(['random', own], space, 'val_cfg.subnets')
