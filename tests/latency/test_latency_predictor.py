"""Tables and predictions of a model, on a machine whose times are known: so much a multiply-add."""
from __future__ import annotations

import copy
import json
import random
import re
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import DefaultScope

from mmbignas import ConfigError
from mmbignas.cost import CostModel
from mmbignas.latency import Backend, LatencyPredictor, LatencyTable, build_latency_table, build_table
from mmbignas.latency.measurement import TensorMode
from mmbignas.space import Subnet
from mmbignas.supernet import subnet_config
from tests.latency.fake_backend import BESIDE, PER_MAC, STRETCH, FakeBackend, conv_macs
from tests.small_models import big_fpn, big_resnet, big_retina_head, element, retinanet, tower

SIZES = [(64, 64), (64, 96)]
WIDTHS = element([8, 8, 8, 16, 16], [8, 8, 16, 16, 24], 8)
DEPTHS = element([1, 1, 1, 1, 1], [1, 1, 1, 3, 1], 1, 'stage_wise_depth')
NECK = big_fpn(in_channels=[16, 16, 24], out_channel=dict(space=dict(min=[8, 8], max=[8, 8])))
HEAD = big_retina_head(in_channels=8, cls_tower=tower(depth=[1], out_channel=element([8], [16], 8)))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(build_table, 'PATIENCE', 300)
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


class Case:
    """A small detector."""

    def __init__(self, sizes: list[tuple[int, int]] = SIZES, out_channel: Any = WIDTHS, depth: Any = DEPTHS) -> None:
        backbone = big_resnet(out_channel=out_channel, depth=depth, kernel_size=[3] * 5, deep_stem=False)
        self.config = retinanet(backbone, NECK, HEAD)
        self.model = MODELS.build(copy.deepcopy(self.config))
        self.cost_model = CostModel(self.model, sizes)

    def build(self, path: Path, backend: Backend, **kwargs: Any) -> LatencyTable:
        options = dict(fitted=4, held_out=3)
        return build_latency_table(path, self.config, self.model, self.cost_model, backend, **{**options, **kwargs})

    def milliseconds(self, subnet: Subnet, batch_size: int) -> float:
        """What the fake machine takes, counted in the exported network."""
        plain = MODELS.build(subnet_config(self.config, self.model, subnet))
        images = torch.zeros(batch_size, 3, *(subnet.image_size or self.cost_model.space.image_sizes[0]))
        return BESIDE + STRETCH * PER_MAC * conv_macs(TensorMode(plain), (images, ))


@pytest.fixture(scope='module')
def case() -> Case:
    return Case()


BACKEND = FakeBackend()


@pytest.fixture
def table_file(tmp_path_factory: pytest.TempPathFactory, case: Case) -> Path:
    """A complete table for batches of one, built once and copied."""
    path = tmp_path_factory.getbasetemp() / 'latency_table.json'
    if not path.exists():
        case.build(path, BACKEND)
    return Path(shutil.copy(path, tmp_path_factory.mktemp('table') / 'table.json'))


@pytest.mark.parametrize('batch_size', [1, 3])
def test_known_times_are_predicted(tmp_path: Path, case: Case, table_file: Path, batch_size: int) -> None:
    path = table_file if batch_size == 1 else tmp_path / 'table.json'
    table = case.build(path, FakeBackend(), batch_size=batch_size)
    assert table.fit is not None
    assert (table.fit.intercept, table.fit.slope) == pytest.approx((BESIDE, STRETCH), rel=1e-6)
    assert table.fit.error == pytest.approx(0., abs=1e-6)
    predictor = LatencyPredictor(LatencyTable.load(path), case.cost_model)
    rng, space = random.Random(5), case.cost_model.space
    for subnet in (space.max(), space.min(), space.middle(), *(space.sample(rng) for _ in range(5))):
        assert predictor(subnet) == predictor(subnet) == pytest.approx(case.milliseconds(subnet, batch_size), rel=1e-6)


def test_the_error_is_that_of_held_out_subnets(tmp_path: Path, case: Case) -> None:
    case.build(tmp_path / 'table.json', FakeBackend(rounds=2, noise=0.3), held_out=4)
    content = json.loads((tmp_path / 'table.json').read_text())
    fit, space = content['fit'], case.cost_model.space
    assert len(fit['fitted']) == 4
    assert len(fit['held_out']) == 4
    assert sorted(fit['fitted'] + fit['held_out']) == sorted(content['networks'])
    assert {space.index(space.max()), space.index(space.min())} < set(map(int, fit['fitted']))
    errors = []
    for number in fit['held_out']:
        blocks = (case.milliseconds(space[int(number)], 1) - BESIDE) / STRETCH
        measured = min(content['networks'][number])  # in the quieter of two rounds
        errors.append(abs(fit['intercept'] + fit['slope'] * blocks - measured) / measured * 100)
    assert fit['error'] == pytest.approx(statistics.median(errors), rel=1e-6)
    assert fit['error'] > 1


def test_equal_blocks_are_measured_once(table_file: Path) -> None:
    table = LatencyTable.load(table_file)
    assert len(BACKEND.measured) == len(table.times) + len(table.networks)
    # Later blocks of a stage are equal, and so are the towers of classes and boxes.
    of_stage = [key for key in table.blocks if re.match(r'backbone.layer3.[12] \(16, 3, 1\) \(\(1, 16, 4, 4\),', key)]
    assert len(of_stage) == 2
    assert len({table.blocks[key] for key in of_stage}) == 1
    towers = {key: name for key, name in table.blocks.items() if '.cls_tower.' in key}
    assert len(towers) == 2 * 2  # widths, image sizes
    assert all(table.blocks[key.replace('cls_tower', 'reg_tower')] == name for key, name in towers.items())


def test_interrupted_anywhere_it_goes_on(tmp_path: Path) -> None:
    case = Case([(64, 64)], out_channel=[8, 8, 16, 16, 24])
    case.build(tmp_path / 'whole.json', whole := FakeBackend(rounds=2))
    rng = random.Random(0)
    backend = FakeBackend(rounds=2)
    while True:
        backend.left = rng.randrange(0, len(whole.measured) // 3)
        try:
            table = case.build(tmp_path / 'table.json', backend)
            break
        except KeyboardInterrupt:
            with pytest.raises(ConfigError, match='table.json: is not complete'):
                LatencyPredictor(LatencyTable.load(tmp_path / 'table.json'), case.cost_model)
    assert backend.measured == whole.measured
    assert (tmp_path / 'table.json').read_bytes() == (tmp_path / 'whole.json').read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.suffix != '.json'] == []
    backend.left, lacking = 0, []
    assert case.build(tmp_path / 'table.json', backend, report=lacking.append).fit == table.fit
    assert lacking == [0]


def test_a_table_is_for_one_model(case: Case, table_file: Path) -> None:
    table, fewer_sizes = LatencyTable.load(table_file), CostModel(case.model, SIZES[:1])
    assert LatencyPredictor(table, fewer_sizes)(fewer_sizes.space.max()) < LatencyPredictor(
        table, case.cost_model)(case.cost_model.space.max())
    other_sizes = CostModel(case.model, [(96, 96)])
    with pytest.raises(ConfigError, match=r'has no block backbone.stem .*\(1, 3, 96, 96\)'):
        LatencyPredictor(table, other_sizes)(other_sizes.space.max())
    other = Case(out_channel=[8, 8, 16, 16, 24])
    with pytest.raises(ConfigError, match=r'table.json: subnets must be \W?\d+\W?, as in this model .*, got \W?\d+'):
        LatencyPredictor(table, other.cost_model)
    with pytest.raises(ConfigError, match='table.json: was measured with batch_size 1, now it is 2'):
        case.build(table_file, FakeBackend(), batch_size=2)
    settings = copy.deepcopy(case.config)
    settings.update(data_preprocessor=dict(type='DetDataPreprocessor', mean=[1, 2, 3]), test_cfg=dict(a=1),
                    init_cfg=dict(type='Pretrained', checkpoint='a.pth'))  # which take no time
    assert LatencyPredictor(table, case.cost_model, settings)(case.cost_model.space.min()) > 0
    settings['backbone']['act_cfg'] = dict(type='SiLU')  # of the same space, with the same parameters
    named = r'table.json: was measured with another network, which differs in model.backbone.act_cfg'
    with pytest.raises(ConfigError, match=named):
        LatencyPredictor(table, case.cost_model, settings)
    with pytest.raises(ConfigError, match=named):
        build_latency_table(table_file, settings, case.model, case.cost_model, FakeBackend(), fitted=4, held_out=3)
    del table.identity['settings']  # of an earlier version
    with pytest.raises(ConfigError, match=r'which differs in model \(nothing about it there\); build a table'):
        LatencyPredictor(table, case.cost_model, case.config)


def test_what_cannot_work_is_refused_first(tmp_path: Path, case: Case) -> None:
    backend = FakeBackend()
    backend.left = 0
    with pytest.raises(ConfigError, match='table.json: cannot be written'):
        case.build(tmp_path / 'no' / 'table.json', backend)
    with pytest.raises(ConfigError, match='batch_size must be an integer >= 1, got 0'):
        case.build(tmp_path / 'table.json', backend, batch_size=0)
    small = Case([(64, 64)], out_channel=[8, 8, 16, 16, 24], depth=[1] * 5)
    count = small.cost_model.space.size
    with pytest.raises(ConfigError, match=f'model must be a supernet with more than {count} subnets .*, got {count}'):
        small.build(tmp_path / 'table.json', backend, fitted=count)
