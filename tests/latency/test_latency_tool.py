"""The command line: tables for people, errors in one line."""
from __future__ import annotations

import json
import re
import runpy
import sys
from functools import partial
from pathlib import Path

import pytest
from mmengine.config import Config

from mmbignas.cost import CostModel
from mmbignas.latency import build_latency_table, build_table, measure_latency
from mmbignas.latency.backends import TorchBackend
from mmbignas.utils.units import format_macs, format_params
from tests.small_models import big_fpn, big_resnet, big_retina_head, retinanet, tower
from tests.small_models import build as build_model

TOOL = Path(__file__).parents[2] / 'tools' / 'latency.py'


@pytest.fixture
def config(tmp_path: Path) -> str:
    model = retinanet(big_resnet(depth=[1] * 5, kernel_size=[3] * 5), big_fpn(), big_retina_head(
        cls_tower=tower(depth=[1])))
    path = tmp_path / 'supernet.py'
    Config(dict(model=model, default_scope='mmdet')).dump(path)
    return str(path)


def run(monkeypatch: pytest.MonkeyPatch, *args: str) -> None:
    monkeypatch.setattr(sys, 'argv', ['latency.py', *args])
    monkeypatch.setenv('LOCAL_RANK', '0')
    runpy.run_path(str(TOOL), run_name='__main__')


def test_measure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, config: str) -> None:
    monkeypatch.setattr('mmbignas.latency.measure_latency', partial(measure_latency, seconds=0., min_samples=2))
    run(monkeypatch, 'measure', config, '--subnet', 'max', '5', '--image-size', '64', '96', '--threads', '1',
        '--batch-size', '2')
    lines = capsys.readouterr().out.splitlines()
    model = build_model(Config.fromfile(config).model)
    cost_model = CostModel(model, [(64, 96)])
    for name, subnet in (('max', cost_model.space.max()), ('subnet5', cost_model.space[5])):
        [row] = [line for line in lines if re.match(rf'\| {name} ', line)]
        cost = cost_model(subnet)
        cells = [cell.strip() for cell in row.strip('|').split('|')]
        assert cells[:4] == [name, '64x96', format_macs(cost.macs), format_params(cost.params)]
        assert float(cells[4]) > 0
        assert float(cells[5]) >= 0
    assert 'batch size 2, backend torch, device ' in lines[-1]
    assert 'threads 1, dtype float32' in lines[-1]


def test_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, config: str, tmp_path: Path) -> None:
    monkeypatch.setattr(build_table, 'PATIENCE', 200)
    for name in ('BLOCK_SECONDS', 'NETWORK_SECONDS', 'BURST_SECONDS'):
        monkeypatch.setattr(build_table, name, 0.)
    monkeypatch.setattr(TorchBackend, 'rounds', 1)
    monkeypatch.setattr('mmbignas.latency.build_latency_table',
                        partial(build_latency_table, fitted=3, held_out=2))
    args = ['table', config, '--out', str(tmp_path / 'table.json'), '--image-size', '64', '64']
    run(monkeypatch, *args)
    (first, bar), content = capsys.readouterr(), (tmp_path / 'table.json').read_text()
    fit = json.loads(content)['fit']
    assert 'ETA' in bar
    assert f'latency = {fit["intercept"]:.3f} ms + {fit["slope"]:.4f} * the sum of the blocks' in first
    assert f'median absolute error on 2 other subnets: {fit["error"]:.2f} %' in first
    assert 'image sizes [[64, 64]], batch size 1' in first
    run(monkeypatch, *args)  # nothing is lacking
    assert (tmp_path / 'table.json').read_text() == content
    assert first.splitlines()[-4:] == capsys.readouterr().out.splitlines()[-4:]


@pytest.mark.parametrize(('command', 'message'), [
    ('measure missing.py --image-size 64 64', 'config file not found: missing.py'),
    ('measure CONFIG --image-size 64', '--image-size must be pairs of height and width, got [64]'),
    ('measure CONFIG --image-size 64 64 --subnet largest', '--subnet[0] must be max, min, middle, random, a number '),
    ('measure CONFIG --image-size 64 64 --subnet 99999999', '--subnet[0]: subnet number must be an integer from 0 to '),
    ('measure CONFIG --image-size 64 64 --device gpu', "device must be one of cpu, cuda with backend torch, got 'gpu'"),
    ('measure CONFIG --image-size 64 64 --batch-size 0', 'batch_size must be an integer >= 1, got 0'),
    ('table CONFIG --image-size 64 64 --out no/table.json', 'no/table.json: cannot be written'),
    ('table CONFIG --image-size 64 64 --out CONFIG', 'is not valid JSON'),
])
def test_errors_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, config: str, command: str,
                             message: str) -> None:
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, *command.replace('CONFIG', config).split())
    assert stop.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith('error: ')
    assert message in line
