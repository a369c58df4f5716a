"""The costs of a space: its record, the loop in a Runner, and the tool."""
from __future__ import annotations

import functools
import itertools
import json
import os
import random
import runpy
import signal
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from mmdet.registry import MODELS
from mmengine.hooks import Hook
from torch import nn

from mmbignas import ConfigError
from mmbignas.cost import CostModel
from mmbignas.evaluation import sample_flops
from mmbignas.evaluation.sample_flops import FILES, SampleFlops
from mmbignas.space import Subnet
from mmbignas.supernet import Supernet, subnet_config
from mmbignas.utils.files import written_together
from tests.distributed import run_processes
from tests.small_models import retinanet
from tests.toy import ToyRunner

ROOT = Path(__file__).parents[2]
SIZES = [[64, 64], [64, 96]]
# A data set and an evaluator that could not be built.
MISSING = dict(
    test_dataloader=dict(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
                         dataset=dict(type='CocoDataset', ann_file='missing.json', pipeline=[])),
    test_evaluator=dict(type='CocoMetric', ann_file='missing.json'))


@pytest.fixture(scope='module')
def model() -> nn.Module:
    """A small RetinaNet supernet without weights."""
    with torch.device('meta'):
        return MODELS.build(retinanet())


known_cost_model = functools.cache(CostModel)


@pytest.fixture(autouse=True)
def one_cost_model_each(monkeypatch: Any, model: nn.Module) -> None:
    """Build the cost model of the small supernet, a second's work, once for each choice of sizes."""
    monkeypatch.setattr(sample_flops, 'CostModel', lambda own, sizes: (
        known_cost_model(model, sizes) if own is model else CostModel(own, sizes)))


def lines_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / 'subnets.jsonl').read_text().splitlines()]


def conv_macs(model: nn.Module, settings: dict, size: list[int]) -> dict[str, int]:
    """MACs of the exported network by child, from the shapes that its convolutions see."""
    with torch.device('meta'):
        plain = MODELS.build(subnet_config(retinanet(), model, settings)).eval()
    macs = dict.fromkeys(['backbone', 'neck', 'bbox_head'], 0)

    def count(name: str, conv: nn.Conv2d, output: torch.Tensor) -> None:
        macs[name] += output[0].numel() * conv.in_channels // conv.groups * conv.kernel_size[0] * conv.kernel_size[1]

    for name in macs:
        for module in getattr(plain, name).modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(lambda conv, _, output, name=name: count(name, conv, output))
    with torch.no_grad():
        plain(torch.empty(1, 3, *size, device='meta'), mode='tensor')
    return macs


@pytest.mark.parametrize('sizes', [SIZES[0], SIZES])
def test_record(tmp_path: Path, model: nn.Module, sizes: list) -> None:
    texts: list[str] = []
    own = SampleFlops(sizes, subnet_count=40, subnet_sample_mode='uniform', baseline_flops='5M', seed=3)
    sample = own.run(model, tmp_path / 'new' / 'folder', texts.append)
    assert sorted(path.name for path in (tmp_path / 'new' / 'folder').iterdir()) == sorted(FILES)
    lines = lines_of(tmp_path / 'new' / 'folder')
    assert len({line['number'] for line in lines}) == len(lines) == 40
    space = Supernet(model).space.with_image_sizes(sizes if len(sizes) == 2 and isinstance(sizes[0], list) else [sizes])
    for line in lines:
        assert space.canonical(line['subnet_settings']) == space[line['number']]
        assert line['image_size'] == line['subnet_settings'].get('image_size', SIZES[0])
        assert 'latency_ms' not in line
        for name in ('macs', 'ops', 'params'):
            assert line[name] == sum(part[name] for part in line['modules'].values())
    for line in lines[:5]:
        settings = {path: elements for path, elements in line['subnet_settings'].items() if path != 'image_size'}
        expected = conv_macs(model, settings, line['image_size'])
        assert {name: part['macs'] for name, part in line['modules'].items()} == expected
    assert list(sample.macs) == [line['macs'] for line in lines]
    summary = json.loads((tmp_path / 'new' / 'folder' / 'summary.json').read_text())
    assert (summary['space_size'], summary['kept'], summary['seed']) == (space.size, 40, 3)
    assert summary['macs']['50'] == pytest.approx(np.median([line['macs'] for line in lines]), abs=0.5)
    assert summary['params']['25'] == pytest.approx(np.quantile([line['params'] for line in lines], .25), abs=0.5)
    within = sum(abs(line['macs'] - 5e6) <= 25e4 for line in lines)
    assert summary['marks']['baseline']['within_5_percent'] == within
    assert summary['marks']['baseline']['share_within_5_percent'] == within / 40
    assert f'40 subnets in {sample.drawn} draws; the space has {space.size}' in texts[0]
    for picture in ('macs.png', 'macs_params.png'):
        assert plt.imread(tmp_path / 'new' / 'folder' / picture)[..., :3].std() > 0.05


def test_same_seed_same_record(tmp_path: Path, model: nn.Module) -> None:
    texts = []
    for name, seed in (('a', 5), ('b', 5), ('c', 6)):
        SampleFlops(SIZES, 15, flops_range=[None, '5M'], seed=seed).run(model, tmp_path / name, lambda text: None)
        texts.append((tmp_path / name / 'subnets.jsonl').read_text())
    assert texts[0] == texts[1] != texts[2]
    assert max(line['macs'] for line in lines_of(tmp_path / 'a')) <= 5 * 10**6


@pytest.mark.parametrize(('arguments', 'message'), [
    ({}, 'image_size'), (dict(image_size=[]), 'image_size'), (dict(image_size=[[64, 0]]), 'image_size'),
    (dict(image_size=[64, 64], subnet_count=0), 'subnet_count'),
    (dict(image_size=[64, 64], subnet_sample_mode='grid'), 'subnet_sample_mode'),
    (dict(image_size=[64, 64], flops_range=['2G', '1G']), 'flops_range must be [low, high] with low <= high'),
    (dict(image_size=[64, 64], large_flops='5GFLOPs'), 'large_flops must be a number of MACs'),
    (dict(image_size=[64, 64], seed=0.5), 'seed must be an integer, got 0.5')])
def test_arguments_are_checked_first(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        SampleFlops(**arguments)
    assert str(error.value).startswith(message)
    assert '\n' not in str(error.value)


def test_a_folder_that_cannot_be_is_refused_before_anything(monkeypatch: Any, tmp_path: Path, model: nn.Module) -> None:
    (tmp_path / 'file').write_text('mine')
    monkeypatch.setattr(sample_flops, 'CostModel', lambda *args: pytest.fail('too late'))
    with pytest.raises(ConfigError, match=r'file/sub: cannot be written to \(Not a directory\)'):
        SampleFlops([64, 64]).run(model, tmp_path / 'file' / 'sub')
    assert (tmp_path / 'file').read_text() == 'mine'


def test_an_error_leaves_what_was_there(tmp_path: Path, model: nn.Module) -> None:
    own = SampleFlops([64, 64], 10)
    own.run(model, tmp_path, lambda text: None)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match='flops_range must be a range that overlaps'):
        SampleFlops([64, 64], 10, flops_range=['1T', None]).run(model, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def run_and_die(step: str, model: nn.Module, folder: Path) -> None:
    """Draw 12 subnets, but kill this process in a step, or after 7 of them."""
    calls = itertools.count(1)

    def die(*args: Any) -> float:
        if step != 'latency' or next(calls) == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return 1.

    own = SampleFlops([64, 64], 12, seed=2)
    if step == 'latency':
        own.table = 'a table'  # type: ignore[assignment]
        sample_flops.LatencyPredictor = lambda *args: die  # type: ignore[assignment,misc]
    else:
        setattr(sample_flops, step, die)
    own.run(model, folder)


@pytest.mark.parametrize('step', ['latency', 'draw_macs', 'draw_macs_params'])
def test_killed_half_way(tmp_path: Path, model: nn.Module, step: str) -> None:
    SampleFlops([64, 64], 12, seed=1).run(model, tmp_path, lambda text: None)
    before = {name: (tmp_path / name).read_bytes() for name in FILES}
    child = os.fork()
    if child == 0:
        try:
            run_and_die(step, model, tmp_path)
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == before
    [left] = tmp_path.glob('.subnets.jsonl.*.partial/subnets.jsonl')
    partial = [json.loads(line) for line in left.read_text().splitlines()]
    assert len(partial) == (7 if step == 'latency' else 12)
    SampleFlops([64, 64], 12, seed=2).run(model, tmp_path, lambda text: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    assert [line['number'] for line in lines_of(tmp_path)][:len(partial)] == [line['number'] for line in partial]


def test_latencies(monkeypatch: Any, tmp_path: Path, model: nn.Module) -> None:
    def milliseconds(subnet: Subnet) -> float:
        return sum(subnet['backbone']['depth']) / 7

    own = SampleFlops([64, 64], 11)
    own.table = 'a table'  # type: ignore[assignment]
    monkeypatch.setattr(sample_flops, 'LatencyPredictor',
                        lambda table, cost_model, model_cfg: milliseconds if table == 'a table' else None)
    texts: list[str] = []
    own.run(model, tmp_path, texts.append)
    latencies = [line['latency_ms'] for line in lines_of(tmp_path)]
    space = Supernet(model).space
    assert latencies == [milliseconds(space[line['number']]) for line in lines_of(tmp_path)]
    summary = json.loads((tmp_path / 'summary.json').read_text())
    assert summary['latency_ms']['50'] == pytest.approx(statistics.median(latencies), abs=1e-4)
    assert f'{statistics.median(latencies):.2f} ms' in texts[0]


def test_files_get_their_names_together(tmp_path: Path) -> None:
    (tmp_path / 'a').write_text('old')
    with written_together(tmp_path, ['a', 'b']) as (first, second):
        first.write_text('new')
        assert (tmp_path / 'a').read_text() == 'old'
        second.write_text('new')
        assert not (tmp_path / 'b').exists()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict(a='new', b='new')


class TestStages(Hook):
    """Keeps what is called in a test."""

    __test__ = False

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def before_test(self, runner: Any) -> None:
        self.calls.append('before_test')

    def before_test_epoch(self, runner: Any) -> None:
        self.calls.append('before_test_epoch')

    def after_test_epoch(self, runner: Any, metrics: Any = None) -> None:
        self.calls.append(metrics)

    def after_test(self, runner: Any) -> None:
        self.calls.append('after_test')


def loop_runner(folder: Path, hook: Hook | None = None, **arguments: Any) -> Any:
    """A Runner that tests by this loop."""
    test_cfg = dict(type='mmbignas.SampleFlopsLoop', **{**dict(image_size=SIZES, subnet_count=12), **arguments})
    return ToyRunner(retinanet(), str(folder), test_cfg=test_cfg, custom_hooks=[hook] if hook else [],
                     default_scope='mmdet', experiment_name=folder.name, log_level='ERROR', **MISSING)


def test_loop(tmp_path: Path) -> None:
    hook = TestStages()
    runner = loop_runner(tmp_path, hook, baseline_flops='5M', flops_range=['1M', '9M'])
    state = {name: value.clone() for name, value in runner.model.state_dict().items()}
    metrics = runner.test()
    folder = Path(runner.log_dir) / 'sample_flops'
    macs, params = ([line[name] for line in lines_of(folder)] for name in ('macs', 'params'))
    assert len(macs) == 12
    assert metrics == {
        'sample_flops/subnets': 12, 'sample_flops/macs_min': min(macs),
        'sample_flops/macs_median': round(statistics.median(macs)), 'sample_flops/macs_max': max(macs),
        'sample_flops/params_min': min(params), 'sample_flops/params_median': round(statistics.median(params)),
        'sample_flops/params_max': max(params),
        'sample_flops/within_1_percent_of_baseline': sum(abs(own - 5e6) <= 5e4 for own in macs),
        'sample_flops/within_5_percent_of_baseline': sum(abs(own - 5e6) <= 25e4 for own in macs)}
    assert hook.calls == ['before_test', 'before_test_epoch', metrics, 'after_test']
    assert runner.message_hub.get_scalar('test/sample_flops/macs_max').current() == max(macs)
    assert all(torch.equal(state[name], value) for name, value in runner.model.state_dict().items())
    # What the test tools do for --out.
    assert runner.test_evaluator.metrics == []


def test_loop_checks_its_arguments(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='image_size.*None'):
        loop_runner(tmp_path, image_size=None).test()


def loop_in_a_process(rank: int, folder: str) -> tuple[dict, str]:
    runner = loop_runner(Path(folder), image_size=[64, 64], subnet_count=3)
    return runner.test(), runner.log_dir


def test_loop_in_two_processes(tmp_path: Path) -> None:
    (first, folder), (second, _) = run_processes(loop_in_a_process, str(tmp_path))
    assert first == second
    assert first['sample_flops/macs_max'] == max(line['macs'] for line in lines_of(Path(folder) / 'sample_flops'))
    assert len(list(tmp_path.rglob('subnets.jsonl'))) == 1


def run_tool(monkeypatch: Any, *arguments: Any) -> None:
    monkeypatch.setattr(sys, 'argv', ['sample_flops.py', *map(str, arguments)])
    monkeypatch.setenv('LOCAL_RANK', '0')
    runpy.run_path(str(ROOT / 'tools' / 'sample_flops.py'), run_name='__main__')


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / 'small.py'
    path.write_text(f"default_scope = 'mmdet'\nmodel = {retinanet().to_dict()!r}\n")
    return path


def test_tool(monkeypatch: Any, capsys: Any, tmp_path: Path, config: Path) -> None:
    monkeypatch.chdir(tmp_path)
    run_tool(monkeypatch, config, '--image-size', 64, 96, 64, 64, '--subnet-count', 9, '--flops-range', 'none', '6M',
             '--baseline-flops', '5M', '--subnet-sample-mode', 'uniform', '--seed', 4)
    folder = tmp_path / 'work_dirs' / 'small' / 'sample_flops'
    output = capsys.readouterr()
    assert '9 subnets in ' in output.out
    assert 'baseline, 5.00 MMACs: ' in output.out
    assert f'in {folder.relative_to(tmp_path)}: ' in output.out
    with torch.device('meta'):
        cost_model = CostModel(MODELS.build(retinanet()), [(64, 64), (64, 96)])
    rng, numbers = random.Random(4), dict[int, int]()
    while len(numbers) < 9:
        subnet = cost_model.space.sample_uniform(rng)
        if cost_model(subnet).macs <= 6_000_000:
            numbers[cost_model.space.index(subnet)] = cost_model(subnet).macs
    assert {line['number']: line['macs'] for line in lines_of(folder)} == numbers


def test_tool_takes_the_rest_from_the_loop(monkeypatch: Any, capsys: Any, tmp_path: Path, config: Path) -> None:
    with config.open('a') as file:
        file.write("test_cfg = dict(type='mmbignas.SampleFlopsLoop', image_size=[64, 96], subnet_count=7, seed=2)\n")
    run_tool(monkeypatch, config, '--out', tmp_path / 'a', '--cfg-options', 'test_cfg.baseline_flops=5M')
    run_tool(monkeypatch, config, '--out', tmp_path / 'b', '--subnet-count', 3, '--image-size', 64, 64)
    first, second = (json.loads((tmp_path / name / 'summary.json').read_text()) for name in 'ab')
    assert (first['kept'], first['seed'], first['marks']['baseline']['macs']) == (7, 2, 5 * 10**6)
    assert (second['kept'], second['seed'], second['marks']) == (3, 2, {})
    assert {tuple(line['image_size']) for name in 'ab' for line in lines_of(tmp_path / name)} == {(64, 96), (64, 64)}


@pytest.mark.parametrize(('options', 'message'), [
    ([], '--image-size H W is missing'),
    (['--image-size', '64'], '--image-size must be pairs of height and width, got [64]'),
    (['--image-size', '64', '64', '--baseline-flops', '5 GFLOPs'], "got '5 GFLOPs'"),
    (['--image-size', '64', '64', '--flops-range', '1T', '2T'], 'flops_range must be a range that overlaps'),
])
def test_tool_errors_are_one_line(monkeypatch: Any, capsys: Any, tmp_path: Path, config: Path, options: list,
                                  message: str) -> None:
    with pytest.raises(SystemExit) as stop:
        run_tool(monkeypatch, config, '--out', tmp_path / 'out', *options)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: ')
    assert message in line
