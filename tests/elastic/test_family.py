"""A family as the tool finds it: its layers, their MACs, the table and the picture."""
from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from mmbignas import ConfigError
from mmbignas.elastic.elastic_picture import draw_layers
from mmbignas.elastic.family import Family
from mmbignas.elastic.network_profile import LayerProfile, elastic_share
from mmbignas.elastic.summary import summary
from tests.elastic.networks import retinanet

SIZE = [64, 64]


@pytest.fixture(scope='module')
def config() -> Config:
    model = retinanet()
    model['type'] = 'RetinaNet'
    model['backbone'].update(norm_eval=True, frozen_stages=1)
    return Config(dict(default_scope='mmdet', model=model))


@pytest.fixture(scope='module')
def family(config: Config) -> Family:
    return Family(config, None, SIZE, divisor=2, example=64)


def test_layers_have_the_macs_that_the_cost_model_counts(family: Family) -> None:
    assert family.largest is not None
    assert sum(layer.macs for layer in family.layers) == 2 * family.largest.macs  # the batch has two images
    layers = {layer.path: layer for layer in family.layers}
    first, second, last = (layers[path] for path in ('backbone.layer2.0.conv1', 'backbone.layer2.1.conv1',
                                                     'bbox_head.retina_cls'))
    assert (first.channels, first.least, first.is_elastic) == (16, 8, True)
    assert (second.channels, second.least, second.is_elastic) == (16, 0, True)
    assert last.channels == last.least == 6 and last.is_elastic
    assert elastic_share(family.layers) == 1
    assert elastic_share([LayerProfile('a', 30, 8, 8, False), LayerProfile('b', 10, 8, 4, True)]) == 0.25


def test_settings_and_overrides(family: Family) -> None:
    assert family.of == 'mmdet.RetinaNet'
    assert family.settings == dict(width=dict(ratios=[0.5, 0.75, 1.0], divisor=2), depth='residual', share='stage')
    assert family.overrides == dict(backbone=dict(norm_eval=False, frozen_stages=-1))


def test_the_table(family: Family) -> None:
    text = summary(family, SIZE)
    for part in ('| backbone.layer2.inner ', '| 8 12 16 ', 'depths', 'smallest subnet: ',
                 '100.0% of the MACs', 'an output of the network: bbox_head.retina_cls'):
        assert part in text, part


def test_the_picture_has_the_colours(tmp_path: Path, family: Family) -> None:
    layers = [*family.layers, LayerProfile('frozen', 1, 8, 8, False)]
    draw_layers(layers, 'a title', tmp_path / 'a.png')
    picture = cv2.imread(str(tmp_path / 'a.png'))
    for red, green, blue in ((0, 114, 178), (86, 180, 233), (230, 159, 0), (178, 178, 178)):
        assert (abs(picture.astype(int) - [blue, green, red]).max(-1) < 3).sum() > 1000
    draw_layers(family.layers, 'a title', tmp_path / 'a.svg', 'svg')
    assert '<svg' in (tmp_path / 'a.svg').read_text()


def test_a_checkpoint_of_another_network_is_refused_before_anything_is_traced(
        tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('mmbignas.elastic.family.proven', None)
    state = MODELS.build(retinanet()).state_dict()
    state['backbone.conv1.weight'] = torch.zeros(4, 3, 7, 7)
    torch.save(dict(state_dict=state), tmp_path / 'other.pth')
    with pytest.raises(ConfigError, match=r'of another architecture.*backbone.conv1.weight \(\(4, 3, 7, 7\) instead'):
        Family(config, str(tmp_path / 'other.pth'), SIZE)
