"""Weights that a model of another size starts from."""
from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.models.dense_heads import RPNHead
from mmdet.models.roi_heads import Shared2FCBBoxHead
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmbignas import ConfigError
from mmbignas.ops import DynamicConv2d
from mmbignas.supernet import Supernet, subnet_config
from mmbignas.supernet.transfer import sliced
from tests.models.same_network import chain, window
from tests.small_models import big_fpn, big_resnet, big_retina_head, build, element, retinanet, scramble, tower
from tests.supernet.test_outside_module import detector

SWITCHABLE = dict(type='mmbignas.SwitchableBatchNorm2d')
SPACES: dict[str, Any] = {
    'depth, width, kernels': retinanet(),
    'kernel transforms, by block, towers apart': retinanet(
        big_resnet(kernel_size=element([3] * 5, [7] * 5, 2, 'block_wise'),
                   expand_ratio=element([0.5] * 5, [1] * 5, 0.25, 'block_wise'),
                   conv_cfg=dict(type='mmbignas.DynamicConv2d', kernel_transform=True)),
        head=big_retina_head(cls_tower=tower(out_channel=element([8], [24], 8, 'block_wise')),
                             reg_tower=tower(out_channel=element([8], [16], 8)))),
    'a normalisation for every width': retinanet(
        big_resnet(norm_cfg=SWITCHABLE, expand_ratio=[1] * 5), big_fpn(norm_cfg=SWITCHABLE),
        big_retina_head(norm_cfg=SWITCHABLE)),
    'a backbone from outside, with groups and linear layers': detector(),
}


def saved(model: nn.Module, path: Path, **meta: Any) -> str:
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return str(path)


def started(config: Any, kind: str, checkpoint: str, **arguments: Any) -> nn.Module:
    """Build and initialise a model as a Runner does."""
    init_cfg = dict(type=f'mmbignas.{kind}', checkpoint=checkpoint, **arguments)
    model = MODELS.build(dict(copy.deepcopy(dict(config)), init_cfg=init_cfg))
    model.init_weights()
    return model


def by_hand(source: dict[str, Tensor], name: str, value: Tensor) -> Tensor:
    """A parameter of the subnet, from the supernet's state dict, by the definition."""
    path, _, leaf = name.rpartition('.')
    narrow = f'{path}.narrow.{value.shape[0] if value.dim() else ""}.{leaf}'
    transforms = {key.removeprefix(f'{path}.transforms.'): matrix for key, matrix in source.items()
                  if key.startswith(f'{path}.transforms.')}
    if narrow in source:
        return source[narrow]
    if value.dim() == 4 and transforms and value.shape[2] < source[name].shape[2]:
        return chain(source[name].double()[:value.shape[0], :value.shape[1]],
                     {step: matrix.double() for step, matrix in transforms.items()}, value.shape[2]).float()
    return source[name][window(source[name].shape, value.shape)]


@pytest.mark.parametrize('name', SPACES)
def test_subnets_start_from_their_supernet(tmp_path: Path, name: str) -> None:
    config = SPACES[name]
    model = scramble(build(copy.deepcopy(config)))
    source = model.state_dict()
    checkpoint, space = saved(model, tmp_path / 'x.pth'), Supernet(model).space
    rng, images = random.Random(0), torch.randn(1, 3, 64, 64)
    for subnet in [space.max(), space.min(), *(space.sample(rng) for _ in range(13))]:
        plain = started(subnet_config(config, model, subnet), 'SupernetCheckpoint', checkpoint).eval()
        for key, value in plain.state_dict().items():
            if value.dim():  # not num_batches_tracked
                torch.testing.assert_close(value, by_hand(source, key, value), rtol=1e-5, atol=1e-6, msg=key)
        Supernet(model).apply(subnet)
        model.eval()
        with torch.no_grad():
            outputs, expected = plain(images, mode='tensor'), model(images, mode='tensor')
        assert all(torch.equal(a, b) for ours, theirs in zip(outputs, expected) for a, b in zip(ours, theirs))


def test_a_backbone_alone(tmp_path: Path) -> None:
    config = retinanet()
    model = scramble(build(config))
    checkpoint, subnet = saved(model, tmp_path / 'x.pth'), Supernet(model).space.min()
    written = subnet_config(config, model, subnet)
    written['backbone']['init_cfg'] = dict(type='mmbignas.SupernetCheckpoint', checkpoint=checkpoint,
                                           prefix='backbone.')
    plain = MODELS.build(written)
    plain.init_weights()
    source = model.state_dict()
    for key, value in plain.state_dict().items():
        if value.dim() == 4:
            same = torch.equal(value, source[key][window(source[key].shape, value.shape)])
            assert same == key.startswith('backbone.'), key


def test_other_classes(tmp_path: Path) -> None:
    """The layer that predicts classes begins anew, as its own init_cfg says; the rest is the supernet's."""
    config = retinanet()
    model = scramble(build(config))
    checkpoint = saved(model, tmp_path / 'x.pth', dataset_meta=dict(CLASSES=('a', 'b', 'c')))
    written = subnet_config(config, model, Supernet(model).space.min())
    written['bbox_head']['num_classes'] = 2
    with pytest.raises(ConfigError, match=r'bbox_head.num_classes must be 3, .* \(a, b, c\), got 2; .*exclude'):
        started(written, 'SupernetCheckpoint', checkpoint)
    plain = started(written, 'SupernetCheckpoint', checkpoint, exclude=['bbox_head.retina_cls'])
    source = model.state_dict()
    for key, value in plain.state_dict().items():
        if value.dim() == 4:
            same = torch.equal(value, source[key][window(source[key].shape, value.shape)])
            assert same != key.startswith('bbox_head.retina_cls'), key
    bias = plain.bbox_head.retina_cls.bias
    torch.testing.assert_close(bias, torch.full_like(bias, -4.595), rtol=0, atol=1e-3)  # a probability of 0.01


def test_it_has_the_last_word(tmp_path: Path) -> None:
    """An init_cfg of a part of the model comes first, and no part is initialised twice."""
    config = retinanet()
    model = scramble(build(config))
    written = subnet_config(config, model, Supernet(model).space.min())
    written['neck']['init_cfg'] = dict(type='Constant', layer='Conv2d', val=7.)
    plain = started(written, 'SupernetCheckpoint', saved(model, tmp_path / 'x.pth'))
    assert not any((value == 7.).all() for value in plain.state_dict().values() if value.dim())
    assert all(module.is_init for module in plain.children() if isinstance(module, BaseModule))


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    config = retinanet()
    model = scramble(build(config))
    subnet = Supernet(model).space.max()
    checkpoint = saved(model, tmp_path / 'x.pth')
    deeper = subnet_config(config, model, subnet)
    deeper['bbox_head']['cls_tower'] = dict(depth=[4], out_channel=[24], kernel_size=[3])
    with pytest.raises(ConfigError, match=r'SupernetCheckpoint.checkpoint: .*x.pth is of no supernet.*cls_tower.3'):
        started(deeper, 'SupernetCheckpoint', checkpoint)
    wider = subnet_config(config, model, subnet)
    wider['bbox_head']['cls_tower'] = dict(depth=[3], out_channel=[32], kernel_size=[3])
    with pytest.raises(ConfigError, match=r'cls_tower.0.conv: cannot cut \(32, 24, 3, 3\)'):
        started(wider, 'SupernetCheckpoint', checkpoint)
    fits = subnet_config(config, model, subnet)
    with pytest.raises(ConfigError, match="prefix must be the beginning of names in .*, got 'neck.x.'"):
        started(fits, 'SupernetCheckpoint', checkpoint, prefix='neck.x.')
    with pytest.raises(ConfigError, match="exclude must be paths of modules of the model, got 'head'"):
        started(fits, 'SupernetCheckpoint', checkpoint, exclude=['head'])
    with pytest.raises(ConfigError, match='checkpoint not found: missing.pth'):
        started(fits, 'SupernetCheckpoint', 'missing.pth')


def test_a_width_without_a_normalisation_of_its_own(tmp_path: Path) -> None:
    config = retinanet(big_resnet(norm_cfg=SWITCHABLE))
    model = build(config)
    written = subnet_config(config, model, Supernet(model).space.max())
    written['backbone']['out_channel'][0] = 12
    with pytest.raises(ConfigError, match='no statistics for width 12; there are those of 8, 16'):
        started(written, 'SupernetCheckpoint', saved(model, tmp_path / 'x.pth'))


@pytest.mark.parametrize('seed', range(5))
def test_a_supernet_starts_from_a_subnet(tmp_path: Path, seed: int) -> None:
    """Its weights and statistics are then the subnet's; the rest is untouched, and listed."""
    config = retinanet()
    model = build(config)
    subnet = Supernet(model).space.sample(random.Random(seed))
    plain = scramble(MODELS.build(subnet_config(config, model, subnet)))
    checkpoint = saved(plain, tmp_path / 'x.pth')
    torch.manual_seed(1)
    untouched = build(config)
    torch.manual_seed(1)
    grown = started(config, 'OverlapCheckpoint', checkpoint)
    state, source = grown.state_dict(), plain.state_dict()
    for key, value in state.items():
        if key in source:
            assert torch.equal(value[window(value.shape, source[key].shape)], source[key]), key
        elif 'tower' not in key and value.dim() == 1:
            assert torch.equal(value, untouched.state_dict()[key]), key
    Supernet(grown).apply(subnet)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        outputs, expected = grown.eval()(images, mode='tensor'), plain.eval()(images, mode='tensor')
    assert all(torch.equal(a, b) for ours, theirs in zip(outputs, expected) for a, b in zip(ours, theirs))


def test_a_supernet_starts_from_something_greater(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = retinanet(big_resnet(kernel_size=element([1] * 5, [3] * 5, 2)))
    bigger = scramble(build(retinanet(
        big_resnet(out_channel=[32, 40, 48, 48, 64], depth=[1, 3, 2, 4, 2], kernel_size=[5] * 5),
        dict(big_fpn(), in_channels=[48, 48, 64], out_channel=[32, 32], norm_cfg=dict(type='BN')),
        big_retina_head(in_channels=32, cls_tower=dict(depth=[4], out_channel=[32], kernel_size=[3])))))
    told: list[str] = []
    monkeypatch.setattr('mmengine.logging.MMLogger.info', lambda logger, text, *args: told.append(text))
    grown = started(config, 'OverlapCheckpoint', saved(bigger, tmp_path / 'x.pth'))
    source = bigger.state_dict()
    for key, value in grown.state_dict().items():
        assert torch.equal(value, source[key][window(source[key].shape, value.shape)]), key
    text = '\n'.join(told)
    assert f'{len(grown.state_dict())} of {len(grown.state_dict())} weights were taken whole' in text
    assert 'but not in the model' in text and 'bbox_head.cls_tower.3.conv.weight' in text
    assert 'in part' not in text


def test_every_width_takes_its_statistics_from_the_only_ones(tmp_path: Path) -> None:
    config = retinanet(big_resnet(norm_cfg=SWITCHABLE))
    plain = scramble(build(retinanet(big_resnet(out_channel=[12, 24, 32, 32, 40], depth=[1, 2, 2, 3, 1],
                                                kernel_size=[5, 3, 5, 3, 3]),
                                     dict(big_fpn(), out_channel=[24, 24]))))
    grown = started(config, 'OverlapCheckpoint', saved(plain, tmp_path / 'x.pth'))
    norm = grown.backbone.stem[1]
    expected = plain.backbone.stem[1].running_var
    for width, child in norm.narrow.items():
        common = min(int(width), len(expected))
        assert torch.equal(child.running_var[:common], expected[:common])
    assert isinstance(grown.backbone.stem[0], DynamicConv2d)


def test_nothing_in_common_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='OverlapCheckpoint.checkpoint: .*no entry with the name of one'):
        started(retinanet(), 'OverlapCheckpoint', saved(nn.Conv2d(3, 4, 3), tmp_path / 'x.pth'))


@pytest.mark.parametrize('kind', ['SupernetCheckpoint', 'OverlapCheckpoint'])
def test_classes_of_old_checkpoints(tmp_path: Path, kind: str) -> None:
    config = retinanet()
    model = scramble(build(config))
    written = subnet_config(config, model, Supernet(model).space.max())
    written['bbox_head']['num_classes'] = 2
    with pytest.raises(ConfigError, match=r'bbox_head.num_classes must be 3.* got 2; .*out of bbox_head.retina_cls'):
        started(written, kind, saved(model, tmp_path / 'x.pth', CLASSES=('a', 'b', 'c')))


def test_an_exclusion_that_leaves_the_classes_in(tmp_path: Path) -> None:
    config = retinanet()
    model = scramble(build(config))
    checkpoint = saved(model, tmp_path / 'x.pth', dataset_meta=dict(classes=('a', 'b', 'c')))
    written = subnet_config(config, model, Supernet(model).space.max())
    written['bbox_head']['num_classes'] = 2
    with pytest.raises(ConfigError, match='num_classes must be 3, .* got 2'):
        started(written, 'SupernetCheckpoint', checkpoint, exclude=['bbox_head.reg_tower'])
    started(written, 'SupernetCheckpoint', checkpoint, exclude='bbox_head.retina_cls')


class OwnHead(BaseModule):
    """A two-stage detector's heads, as far as classes go."""

    def __init__(self, classes: int, init_cfg: Any = None) -> None:
        super().__init__(init_cfg)
        self.rpn_head = RPNHead(in_channels=4, feat_channels=4)
        self.bbox_head = Shared2FCBBoxHead(in_channels=4, fc_out_channels=8, num_classes=classes)


def test_two_stage_detectors(tmp_path: Path) -> None:
    """A proposal network knows of one class; a box head has one more, the background."""
    checkpoint = saved(OwnHead(3), tmp_path / 'x.pth', dataset_meta=dict(classes=('a', 'b', 'c')))
    same, other = (OwnHead(count, dict(type='mmbignas.OverlapCheckpoint', checkpoint=checkpoint)) for count in (3, 2))
    same.init_weights()
    assert torch.equal(same.bbox_head.fc_cls.weight, torch.load(checkpoint)['state_dict']['bbox_head.fc_cls.weight'])
    with pytest.raises(ConfigError, match='out of bbox_head.fc_cls, bbox_head.fc_reg'):
        other.init_weights()


def test_a_list_of_init_cfg(tmp_path: Path) -> None:
    config = retinanet()
    model = scramble(build(config))
    written = subnet_config(config, model, Supernet(model).space.min())
    own = dict(type='mmbignas.SupernetCheckpoint', checkpoint=saved(model, tmp_path / 'x.pth'))
    normal = dict(type='Normal', layer='Conv2d', std=0.01)
    for wrong in ([own, normal], [dict(type='Pretrained', checkpoint='y.pth'), own]):
        with pytest.raises(ConfigError, match='init_cfg must be a list with SupernetCheckpoint last and no '):
            MODELS.build(dict(written, init_cfg=wrong)).init_weights()
    plain = MODELS.build(dict(written, init_cfg=[normal, own]))
    plain.init_weights()
    expected = started(written, 'SupernetCheckpoint', own['checkpoint']).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in plain.state_dict().items())


def test_a_prefix_without_its_dot(tmp_path: Path) -> None:
    model = scramble(build(retinanet()))
    checkpoint = saved(model, tmp_path / 'x.pth')
    backbone = MODELS.build(dict(big_resnet(), init_cfg=dict(
        type='mmbignas.OverlapCheckpoint', checkpoint=checkpoint, prefix='backbone')))
    backbone.init_weights()
    assert all(torch.equal(value, model.backbone.state_dict()[name]) for name, value in backbone.state_dict().items())


def test_names_that_look_like_those_of_dynamic_layers() -> None:
    model = nn.ModuleDict(dict(narrow=nn.Sequential(nn.Conv2d(3, 4, 1)), transforms=nn.Linear(2, 2)))
    state = sliced(model.state_dict(), nn.ModuleDict(dict(
        narrow=nn.Sequential(nn.Conv2d(3, 2, 1)), transforms=nn.Linear(2, 1))).state_dict())
    assert torch.equal(state['narrow.0.weight'], model['narrow'][0].weight[:2])
    assert torch.equal(state['transforms.weight'], model['transforms'].weight[:1])
