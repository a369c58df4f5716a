"""Costs, accuracy without and with calibration, in one table and one file; and nothing else changes."""
from __future__ import annotations

import copy
import json
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.utils import register_all_modules
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.registry import MODELS
from torch import nn

from mmbignas.errors import ConfigError, DependencyError
from mmbignas.evaluation import BNCalibrationHook, evaluate_subnet_loop
from mmbignas.latency import Latency
from mmbignas.ops import DynamicLayer
from mmbignas.supernet import Supernet, calibrate_bn, subnet_config, subnet_state_dict
from tests.distributed import run_processes
from tests.evaluation.test_subnet_val_loop import Detections, detection_loader, loop_of
from tests.runs import MMDET_TOOLS, launch, python, records_of
from tests.small_models import big_retina_head, build, retinanet, scramble
from tests.toy import TellingMetric, ToyModel, build_runner

SIZE = [64, 96]
SUBNETS = ['max', 'random', 'min', dict(name='a_calib', subnet_settings={
    'backbone': dict(out_channel=[8, 16, 24, 32, 24], depth=[1, 2, 1, 3, 1], kernel_size=[3, 3, 5, 3, 3]),
    'neck': dict(out_channel=[16, 16]), 'bbox_head.cls_tower': dict(depth=[2], out_channel=[16])})]
NAMES = ['max', 'random0', 'min', 'a_calib']
LATENCY_MS = 1e-3  # a parameter, of the stand-in for the measurement


def model_config() -> Any:
    config = retinanet()
    config.test_cfg.update(score_thr=0., nms_pre=50)
    return config


@pytest.fixture
def model() -> nn.Module:
    return scramble(build(model_config()))


def loop_runner(folder: Any, model: nn.Module, stage: str = 'test', hooks: tuple = (), metric: Any = None,
                loop: str = 'EvaluateSubnetLoop', load_from: str | None = None, **cfg: Any) -> Any:
    """A Runner that evaluates a detector by this loop."""
    if loop == 'EvaluateSubnetLoop':
        cfg = dict(image_size=SIZE, latency=None, **cfg) if 'image_size' not in cfg else cfg
    # build_runner fills in a calib_bn of its own where there is none.
    own = {'type': f'mmbignas.{loop}', 'subnets': SUBNETS, 'calib_bn': 'both', **cfg}
    return build_runner(
        folder, model, hooks=[BNCalibrationHook(6, detection_loader()), *hooks], load_from=load_from,
        cfg=Config(dict(model=model_config())), **{
            f'{stage}_cfg': own, f'{stage}_dataloader': detection_loader(),
            f'{stage}_evaluator': [metric or Detections()]})


def go(runner: Any, stage: str) -> dict[str, float]:
    return runner.val() if stage == 'val' else runner.test()


def record_of(runner: Any) -> Any:
    return json.loads(Path(runner.log_dir, 'evaluation.json').read_text())


def fake_measure(plain: nn.Module, image_size: Any, **settings: Any) -> Latency:
    """A stand-in for the measurement: time in proportion to the parameters."""
    assert not any(isinstance(module, DynamicLayer) for module in plain.modules())
    assert settings == dict(backend='torch', device='cpu', threads=1, batch_size=2)
    count = sum(parameter.numel() for parameter in plain.parameters())
    return Latency(LATENCY_MS * count, 0.25, 17, image_size, 2, 'torch', 'x', 1, 'float32', {})


def test_record(monkeypatch: Any, tmp_path: Path, model: nn.Module) -> None:
    monkeypatch.setattr(evaluate_subnet_loop, 'measure_latency', fake_measure)
    runner = loop_runner(tmp_path / 'a', model, image_size=SIZE, latency=dict(batch_size=2))
    metrics = runner.test()
    other = loop_runner(tmp_path / 'b', model, loop='SubnetValLoop')
    assert other.test() == metrics
    lines = [Path(own.log_dir, 'subnets_test.jsonl').read_text() for own in (runner, other)]
    assert lines[0] == lines[1]
    record, space = record_of(runner), Supernet(model).space
    assert (record['checkpoint'], record['iter']) == (None, None)
    assert [own['image_size'] for own in record['subnets']] == [SIZE] * len(record['subnets'])
    conditions = record['latency_conditions']
    assert [conditions[name] for name in ('backend', 'threads', 'batch_size', 'dtype')] == ['torch', 1, 2, 'float32']
    assert [own['name'] for own in record['subnets']] == NAMES
    for own in record['subnets']:
        subnet = space[own['number']]
        assert own['subnet_settings'] == subnet.to_dict()
        plain = MODELS.build(subnet_config(model_config(), model, subnet)).eval()
        analyzer = FlopAnalyzer(plain, torch.zeros(1, 3, *SIZE))
        analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        operators = analyzer.by_operator()
        params = sum(parameter.numel() for parameter in plain.parameters())
        assert (own['macs'], own['ops'], own['params']) == (
            operators['conv'] + operators['linear'], analyzer.total(), params)
        assert sum(part['macs'] for part in own['modules'].values()) == own['macs']
        assert own['latency'] == dict(median=pytest.approx(LATENCY_MS * params), iqr=0.25, samples=17)
        for key, suffix in (('metrics', ''), ('metrics_calib', '_calib')):
            assert own[key] == {name: metrics[f'{own["name"]}{suffix}/{name}'] for name in own[key]}
            assert len(own[key]) == 6
    settings = {own['name']: own['subnet_settings'] for own in record['subnets']}
    assert (settings['max'], settings['min']) == (space.max().to_dict(), space.min().to_dict())
    assert settings['a_calib']['backbone']['out_channel'] == [8, 16, 24, 32, 24]
    assert len({own[key]['sum/0'] for own in record['subnets'] for key in ('metrics', 'metrics_calib')}) == 8
    assert [path.name for path in Path(runner.log_dir).iterdir() if 'evaluation' in path.name] == ['evaluation.json']


def test_metrics_are_those_of_the_exported_networks(tmp_path: Path, model: nn.Module) -> None:
    """Under MMEngine's own ``TestLoop``."""
    runner = loop_runner(tmp_path, model)
    runner.test()
    for own in record_of(runner)['subnets'][:2]:
        for key in ('metrics', 'metrics_calib'):
            supernet = copy.deepcopy(model)
            Supernet(supernet).apply(own['subnet_settings'])
            if key == 'metrics_calib':
                hook = next(hook for hook in runner.hooks if isinstance(hook, BNCalibrationHook))
                calibrate_bn(supernet, hook.images.batches())
            plain = MODELS.build(subnet_config(model_config(), supernet, Supernet(supernet).current))
            plain.load_state_dict(subnet_state_dict(supernet, plain))
            plain_runner = build_runner(tmp_path, plain, test_cfg={}, test_dataloader=detection_loader(),
                                        test_evaluator=[Detections()])
            plain_runner._test_loop = dict(type='TestLoop')
            for name, value in plain_runner.test().items():
                assert own[key][name] == pytest.approx(value, rel=1e-5)


def table_of(monkeypatch: Any, runner: Any) -> list[list[str]]:
    """The cells of the table that a test logs."""
    texts: list[str] = []
    monkeypatch.setattr(runner.logger, 'info', lambda text, *args, **kwargs: texts.append(text))
    runner.test()
    [text] = [text for text in texts if text.startswith('Subnets (test)')]
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in text.splitlines() if line[0] == '|']


@pytest.mark.parametrize('calib_bn', [True, False, 'both'])
@pytest.mark.parametrize('latency', [None, dict(batch_size=2)])
def test_table(monkeypatch: Any, tmp_path: Path, model: nn.Module, calib_bn: Any, latency: Any) -> None:
    monkeypatch.setattr(evaluate_subnet_loop, 'measure_latency', fake_measure)
    runner = loop_runner(tmp_path, model, subnets=['min', 'max'], calib_bn=calib_bn, image_size=SIZE, latency=latency,
                         metric1=None if latency else 'sum/3', metric2='sum/2')
    head, *rows = table_of(monkeypatch, runner)
    record = record_of(runner)['subnets']
    metrics = ['sum/0' if latency else 'sum/3', 'sum/2']
    keys = dict(metrics='', metrics_calib=', calibrated')
    if calib_bn != 'both':
        keys.pop('metrics' if calib_bn else 'metrics_calib')
        assert {own['metrics' if calib_bn else 'metrics_calib'] for own in record} == {None}
    assert head == ['subnet', 'MACs', 'parameters', *['latency ms'] * bool(latency),
                    *[name + end for name in metrics for end in keys.values()]]
    assert [row[0] for row in rows] == ['min', 'max']
    for row, own in zip(rows, record):
        assert row[1] == f'{own["macs"] / 1e6:.2f} MMACs'
        assert row[2] == f'{own["params"] / 1e3:.2f} K'
        assert row[3:-len(keys) * 2] == ([f'{own["params"] * LATENCY_MS:.2f}'] if latency else [])
        assert row[-len(keys) * 2:] == [f'{own[key][name]:.3f}' for name in metrics for key in keys]


def everything(model: nn.Module) -> dict[str, Any]:
    """All that an evaluation may not change."""
    return dict(
        state={name: value.clone() for name, value in model.state_dict().items()},
        grads={name: None if own.grad is None else own.grad.clone() for name, own in model.named_parameters()},
        requires={name: own.requires_grad for name, own in model.named_parameters()},
        training={name: own.training for name, own in model.named_modules()},
        momentum={name: own.momentum for name, own in model.named_modules() if hasattr(own, 'momentum')},
        hooks={name: (len(own._forward_hooks), len(own._forward_pre_hooks)) for name, own in model.named_modules()},
        subnet=Supernet(model).current, python=random.getstate(),
        numpy=np.random.get_state()[1].tolist(), torch=torch.get_rng_state(),  # noqa: NPY002
        threads=torch.get_num_threads())


def assert_same(first: Any, second: Any, path: str = '') -> None:
    if isinstance(first, dict):
        assert first.keys() == second.keys(), path
        for name, value in first.items():
            assert_same(value, second[name], f'{path}/{name}')
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), path
    else:
        assert first == second, path


class Broken(Detections):
    """Fails in the third evaluation."""

    def compute_metrics(self, results: list) -> dict:
        self.count = getattr(self, 'count', 0) + 1
        if self.count == 3:
            raise ArithmeticError('broken')
        return super().compute_metrics(results)


@pytest.mark.parametrize(('stage', 'broken'), [('val', False), ('test', False), ('test', True)])
def test_nothing_is_changed(tmp_path: Path, model: nn.Module, stage: str, broken: bool) -> None:
    """With a real measurement, of the smallest networks on a tiny image."""
    rng = random.Random(1)
    for module in model.modules():
        module.training = rng.random() < 0.5
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = rng.choice([0.1, 0.3, None])
    for parameter in model.parameters():
        parameter.requires_grad = rng.random() < 0.5
        parameter.grad = torch.randn_like(parameter) if rng.random() < 0.5 else None
    supernet = Supernet(model)
    supernet.apply(supernet.space.sample(rng))
    runner = loop_runner(tmp_path, model, stage, image_size=[32, 32], latency={}, subnets=['min', 7],
                         metric=Broken() if broken else None)
    assert loop_of(runner, stage).evals  # builds the loop
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    before = everything(model)
    if broken:
        with pytest.raises(ArithmeticError):
            go(runner, stage)
    else:
        go(runner, stage)
    assert_same(before, everything(model))
    latencies = [own['latency'] for own in record_of(runner)['subnets']]
    assert all(own['median'] > 0 and own['iqr'] >= 0 and own['samples'] >= 10 for own in latencies)
    done = [own[key] is not None for own in record_of(runner)['subnets'] for key in ('metrics', 'metrics_calib')]
    assert done == [True, True, not broken, not broken]


class Watch(Hook):
    """Reads the file before each evaluation."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def before_subnet_eval(self, runner: Any, subnet_eval: Any) -> None:
        subnets = record_of(runner)['subnets']
        assert all(own['macs'] > 0 for own in subnets)
        self.seen.append(sum(own[key] is not None for own in subnets for key in ('metrics', 'metrics_calib')))


def test_written_after_each_evaluation(monkeypatch: Any, tmp_path: Path, model: nn.Module) -> None:
    hook = Watch()
    replaced: list[Any] = []
    replace = os.replace

    def complete(source: Any, target: Any) -> None:
        json.loads(Path(source).read_text())
        replaced.append(target)
        replace(source, target)

    monkeypatch.setattr(os, 'replace', complete)
    runner = loop_runner(tmp_path, model, hooks=(hook, ))
    runner.test()
    assert hook.seen == list(range(8))
    assert [path.name for path in replaced] == ['evaluation.json'] * 9


@pytest.mark.filterwarnings('ignore:the cost of ToyModel cannot be divided')
def test_validation_during_training(monkeypatch: Any, tmp_path: Path) -> None:
    """The latency is measured once; the file is that of the last validation."""
    counts: list[int] = []
    monkeypatch.setattr(evaluate_subnet_loop, 'subnet_config', lambda config, model, subnet, size: dict(type='Mock'))
    monkeypatch.setattr(evaluate_subnet_loop.MODELS, 'build', lambda config: None)
    monkeypatch.setattr(evaluate_subnet_loop, 'measure_latency',
                        lambda *args, **kwargs: counts.append(1) or Latency(1, 0, 9, (8, 8), 1, '', '', 1, '', {}))
    runner = build_runner(tmp_path, ToyModel(), train_cfg=dict(max_epochs=2, val_interval=1),
                          cfg=Config(dict(model={})), val_cfg=dict(
                              type='mmbignas.EvaluateSubnetLoop', calib_bn=False, image_size=[8, 8]))
    runner.train()
    assert sum(counts) == 2
    assert record_of(runner)['iter'] == 8
    assert [own['metrics_calib'] for own in record_of(runner)['subnets']] == [None, None]


def test_a_metric_that_is_none_loses_nothing(tmp_path: Path, model: nn.Module) -> None:
    for index, names in enumerate([dict(metric1='sum/x'), dict(metric1='sum/0', metric2='sum/9')]):
        runner = loop_runner(tmp_path / str(index), model, **names)
        with pytest.raises(ConfigError) as error:
            runner.test()
        [(key, value)] = list(names.items())[-1:]
        assert str(error.value).startswith(f'test_cfg.{key} must be sum/0 or sum/1 or sum/2')
        assert f'got {value!r}' in str(error.value)
        assert '\n' not in str(error.value)
        [line] = records_of(Path(runner.log_dir).parent, 'test')
        assert record_of(runner)['subnets'][0]['metrics'] == line['metrics']
        assert str(Path(runner.log_dir, 'evaluation.json')) in str(error.value)


def test_metrics_that_come_late(monkeypatch: Any, tmp_path: Path, model: nn.Module) -> None:
    """COCO's evaluation says nothing if nothing was detected: that counts as 0, not as a wrong name."""
    turns = [{}, dict(note='x', map=torch.tensor(.25)), dict(map=.5), {}]
    runner = loop_runner(tmp_path, model, subnets=['min', 'max'], metric=TellingMetric(turns), metric1='coco/map')
    assert [row[3:] for row in table_of(monkeypatch, runner)[1:]] == [['0.000', '0.250'], ['0.500', '0.000']]
    assert [own['metrics'] for own in record_of(runner)['subnets']] == [{}, {'coco/map': .5}]
    runner = loop_runner(tmp_path, model, subnets=['min'], metric=TellingMetric([{}, {}]))
    assert [len(row) for row in table_of(monkeypatch, runner)] == [3, 3]


class NotYet:
    """A data set that is built too early."""

    def __init__(self) -> None:
        pytest.fail('too late')


@pytest.mark.parametrize('stage', ['val', 'test'])
@pytest.mark.parametrize(('cfg', 'parts'), [
    (dict(image_size=None), ['image_size', 'None', 'height and width']),
    (dict(image_size=[[64, 64], [96, 100]]), ['image_size', '96', '100', 'multiples of 32']),
    (dict(latency=dict(backend='tflite')), ['latency.backend', "'tflite'", 'torch, torch_compile']),
    (dict(latency=dict(batch_size=0)), ['latency.batch_size must be an integer >= 1, got 0']),
    (dict(latency=dict(batch=1)), ["latency must be a dict with keys among backend, device, threads, batch_size, got "
                                   "key 'batch'"]),
    (dict(metric1=1), ["metric1 must be the name of a metric, such as 'coco/bbox_mAP', or None, got 1"]),
    (dict(calib_bn='no'), ["calib_bn must be one of True, False, both, got 'no'"]),
    (dict(subnets=['huge']), ['subnets[0]', "'huge'"]),
])
def test_arguments_are_checked_first(tmp_path: Path, model: nn.Module, stage: str, cfg: dict, parts: list) -> None:
    runner = loop_runner(tmp_path, model, stage, **{'image_size': SIZE, 'latency': None, **cfg})
    getattr(runner, f'_{stage}_dataloader')['dataset'] = dict(type=NotYet)
    with pytest.raises(ConfigError) as error:
        go(runner, stage)
    assert str(error.value).startswith(f'{stage}_cfg.{parts[0]}')
    assert '\n' not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_a_subnet_with_an_image_size(tmp_path: Path, model: nn.Module) -> None:
    settings = dict(Supernet(model).space.min().to_dict(), image_size=SIZE)
    (tmp_path / 'own.json').write_text(json.dumps(dict(subnet_settings=settings)))
    with pytest.raises(ConfigError, match=r'^test_cfg.subnets\[0\]: .*own.json: image_size must be left out'):
        loop_runner(tmp_path, model, subnets=[str(tmp_path / 'own.json')]).test()


def test_a_missing_package_and_a_missing_config(monkeypatch: Any, tmp_path: Path, model: nn.Module) -> None:
    runner = loop_runner(tmp_path, model, image_size=SIZE, latency=dict(backend='onnxruntime'))
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(DependencyError, match='pip install'):
        runner.test()
    runner = loop_runner(tmp_path, model, image_size=SIZE, latency={})
    runner.cfg.pop('model')
    with pytest.raises(ConfigError, match='^test_cfg.latency must be None where the Runner has no config of the model'):
        runner.test()


def in_a_process(rank: int, folder: str) -> Any:
    """Test in one of two processes, with MMEngine's own model wrapper."""
    os.environ['LOCAL_RANK'] = str(rank)
    register_all_modules()
    model, measured = build(model_config()), []
    model.load_state_dict(torch.load(f'{folder}/state.pth'))

    def measure(*args: Any, **kwargs: Any) -> Latency:
        measured.append(rank)
        return fake_measure(*args, **kwargs)

    evaluate_subnet_loop.measure_latency = measure  # type: ignore[assignment]
    wrapper = dict(type='MMDistributedDataParallel', device_ids=None)
    runner = build_runner(
        folder, model, hooks=[BNCalibrationHook(6, detection_loader())], launcher='pytorch',
        cfg=Config(dict(model=model_config(), model_wrapper_cfg=wrapper)), test_dataloader=detection_loader(),
        test_evaluator=[Detections()], test_cfg=dict(
            type='mmbignas.EvaluateSubnetLoop', subnets=SUBNETS, calib_bn='both', image_size=SIZE,
            latency=dict(batch_size=2)))
    rows = []
    info = runner.logger.info
    runner.logger.info = lambda text, *args, **kwargs: rows.append(text) or info(text, *args, **kwargs)
    metrics = [runner.test(), runner.test_loop.run()]
    tables = [text.split('\n', 1)[1] for text in rows if text.startswith('Subnets')]
    return metrics, measured, runner.log_dir, tables


def test_two_processes(monkeypatch: Any, tmp_path: Path, model: nn.Module) -> None:
    (tmp_path / 'two').mkdir()
    torch.save(model.state_dict(), tmp_path / 'two' / 'state.pth')
    first, second = run_processes(in_a_process, str(tmp_path / 'two'))
    assert first[0][0] == first[0][1] == second[0][0] == second[0][1]
    assert first[1] == [0] * 4  # by the first process, once a subnet
    assert second[1] == []
    assert (len(first[3]), second[3]) == (2, [])
    monkeypatch.setattr(evaluate_subnet_loop, 'measure_latency', fake_measure)
    runner = loop_runner(tmp_path / 'one', model, image_size=SIZE, latency=dict(batch_size=2))
    one = runner.test()
    assert first[0][0].keys() == one.keys()
    # Those that are calibrated depend on which images share a batch.
    names = [f'{own}/sum/{number}' for own in NAMES for number in range(6)]
    assert [first[0][0][name] for name in names] == pytest.approx([one[name] for name in names], rel=1e-4)
    [path] = (tmp_path / 'two').rglob('evaluation.json')
    ours, theirs = json.loads(path.read_text()), record_of(runner)
    costs = ('name', 'number', 'subnet_settings', 'macs', 'ops', 'params', 'modules', 'latency')
    assert [[own[key] for key in costs] for own in ours['subnets']] == [
        [own[key] for key in costs] for own in theirs['subnets']]


@pytest.fixture(scope='module')
def evaluated(workspace: Path, whole: Path) -> Iterator[Path]:
    """A config that evaluates the run's checkpoint."""
    path = workspace / 'evaluate.py'
    path.write_text(
        "_base_ = 'config.py'\ntest_cfg = dict(_delete_=True, type='mmbignas.EvaluateSubnetLoop', "
        "subnets=['max', 'random'], image_size=[128, 128], metric1='coco/bbox_mAP')\n")
    return path


def rows_of(output: str) -> list[list[str]]:
    return [line.split() for line in output.splitlines() if line.startswith(('| max', '| random'))]


def without_time(folder: Path) -> Any:
    [path] = folder.rglob('evaluation.json')
    record = json.loads(path.read_text())
    for own in record['subnets']:
        assert own.pop('latency')['median'] > 0
    return record


@pytest.mark.slow
def test_tools(workspace: Path, whole: Path, tested: list, evaluated: Path) -> None:
    """This package's tool, in one and in two processes, and MMDetection's: the same, and that of ``SubnetValLoop``."""
    checkpoint = whole / 'epoch_2.pth'
    runs = dict(ours=(python, 'tools/test.py'), mmdet=(python, MMDET_TOOLS / 'test.py'), two=(launch, 'tools/test.py'))
    outputs = {name: run(tool, evaluated, checkpoint, '--work-dir', workspace / f'evaluated_{name}',
                         *(['--launcher', 'pytorch'] if run is launch else []))
               for name, (run, tool) in runs.items()}
    records = {name: without_time(workspace / f'evaluated_{name}') for name in runs}
    assert records['mmdet'] == records['ours']
    assert records['ours']['checkpoint'] == str(checkpoint)
    metrics = [own[key] for own in records['ours']['subnets'] for key in ('metrics', 'metrics_calib')]
    assert metrics == [line['metrics'] for line in tested]
    for key in ('macs', 'params', 'number', 'metrics'):
        assert [own[key] for own in records['two']['subnets']] == [own[key] for own in records['ours']['subnets']]
    for name, output in outputs.items():
        rows = rows_of(output)
        assert len(rows) == 2, name
        for row, own in zip(rows, records[name]['subnets']):
            assert f'{own["metrics"]["coco/bbox_mAP"]:.3f}' in row
            assert f'{own["metrics_calib"]["coco/bbox_mAP"]:.3f}' in row


def test_what_is_not_finite_is_null(tmp_path: Path, model: nn.Module) -> None:
    """So that any program can read the files."""
    runner = loop_runner(tmp_path, model, subnets=['max'], calib_bn=False, metric=NotFinite())
    runner.test()

    def refuse(constant: str) -> None:
        raise AssertionError(constant)
    for path in (Path(runner.log_dir, 'evaluation.json'), Path(runner.log_dir, 'subnets_test.jsonl')):
        content = json.loads(path.read_text(), parse_constant=refuse)
        metrics = (content.get('subnets') or [content])[0]['metrics']
        assert metrics == {'own/map': .5, 'own/cell': None, 'own/levels': [1., None]}


class NotFinite(BaseMetric):
    """A class without boxes has no precision."""

    default_prefix = 'own'

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(1)

    def compute_metrics(self, results: list) -> dict[str, Any]:
        return dict(map=.5, cell=float('nan'), levels=np.array([1., np.inf]))


@pytest.mark.parametrize('more', [False, True])
def test_a_checkpoint_of_another_architecture(tmp_path: Path, model: nn.Module, more: bool) -> None:
    """MMEngine would load what fits, and go on."""
    state = build(retinanet(head=big_retina_head(num_classes=2))).state_dict()
    torch.save(dict(state_dict=dict(model.state_dict(), adapter=torch.zeros(1)) if more else state), tmp_path / 'x.pth')
    runner = loop_runner(tmp_path, model, load_from=str(tmp_path / 'x.pth'))
    if more:
        loop_of(runner, 'test')
    else:
        with pytest.raises(ConfigError, match='x.pth: is of another architecture .*; 2 of another shape: bbox'):
            loop_of(runner, 'test')


def test_names_that_would_meet(tmp_path: Path, model: nn.Module) -> None:
    subnets = ['min', dict(name='min_calib', subnet_settings=Supernet(model).space.max().to_dict())]
    with pytest.raises(ConfigError, match='test_cfg.subnets must be a list of different names, .*min_calib'):
        loop_of(loop_runner(tmp_path, model, subnets=subnets), 'test')
    loop_of(loop_runner(tmp_path, model, subnets=subnets, calib_bn=False), 'test')
