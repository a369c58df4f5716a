"""Subnets trained alone: which ones, with what config, and a run that is killed and goes on."""
import copy
import json
import os
import random
import re
import runpy
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import CosineAnnealingLR, LinearLR, MultiStepLR
from mmengine.runner import Runner

from mmbignas.analysis.accuracy_sample import EvaluatedSubnet
from mmbignas.cost import CostModel
from mmbignas.data.pipeline_size import pipeline_size
from mmbignas.errors import ConfigError
from mmbignas.ranking.chosen_subnets import check_metric, check_same_model, choose_spread, find_ledger, read_ledger
from mmbignas.ranking.trust import TrustCheck, _scaled
from mmbignas.supernet.build import build_model
from mmbignas.supernet.hashes import space_hash
from mmbignas.utils.identity import settings_of
from tests.processes import environment
from tests.runs import ROOT, assert_same_state, python

METRIC = 'coco/bbox_mAP'
CONFIG = """
_base_ = {base!r}
custom_imports = dict(imports=['mmbignas', 'kill_parent'])
train_dataloader = dict(batch_size=4, dataset=dict(data_root={data!r}, pipeline=[
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs')]))
val_dataloader = dict(batch_size=4, dataset=dict(data_root={data!r}))
val_evaluator = dict(ann_file={data!r} + '/annotations/val.json')
model = dict(test_cfg=dict(score_thr=0., nms_pre=50))
custom_hooks = [dict(type='KillParentHook', flag={data!r} + '/kill'), dict(type='mmbignas.BNCalibrationHook')]
"""
HOOK = """
import os, signal, time
from pathlib import Path
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module(force=True)
class KillParentHook(Hook):
    # In one iteration of one subnet, once.
    def __init__(self, flag):
        self.flag = Path(flag)

    def after_train_iter(self, runner, **kwargs):
        if self.flag.exists() and runner.work_dir.endswith(self.flag.read_text()) and runner.iter == 4:
            self.flag.unlink()
            self.flag.with_name('pid').write_text(str(os.getpid()))
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(100)
"""


def subnet(number, value, image_size=(128, 128), settings=None):
    return EvaluatedSubnet(number, settings or {}, image_size, 10**6 + number, 10**5, metrics={METRIC: value})


def test_choice_is_spread_over_the_accuracy():
    rng = random.Random(0)
    for _trial in range(200):
        total = rng.randint(3, 60)
        values = [rng.choice([rng.random(), .5]) for _ in range(total)]
        subnets = [subnet(number, value) for number, value in enumerate(values)]
        count, seed = rng.randint(3, total), rng.randint(0, 99)
        chosen = choose_spread(subnets, METRIC, count, seed)
        assert len({own.number for own in chosen}) == len(chosen) == count
        found = [own.metric(METRIC) for own in chosen]
        assert found == sorted(found) and (found[0], found[-1]) == (min(values), max(values))
        assert choose_spread(subnets[::-1], METRIC, count, seed) == chosen
        if len(set(values)) == total:  # of equal groups, one each
            ranks = [sorted(values).index(value) - 1 for value in found[1:-1]]
            assert [rank * (count - 2) // (total - 2) for rank in ranks] == list(range(count - 2)) or (
                (total - 2) % (count - 2))
            assert all(later - earlier < 2 * -(-(total - 2) // (count - 2)) for earlier, later in zip(ranks, ranks[1:]))
    others = {tuple(own.number for own in choose_spread(subnets, METRIC, 3, seed)) for seed in range(99)}
    assert len(others) > 1


def test_bad_counts():
    for count in (2, 6):
        with pytest.raises(ConfigError, match=f'--count must be an integer from 3 to 5, got {count}'):
            choose_spread([subnet(number, .1) for number in range(5)], METRIC, count, 0)
    with pytest.raises(ConfigError, match='the number of subnets in the ledger must be 3 or more, got 2'):
        choose_spread([subnet(number, .1) for number in range(2)], METRIC, 3, 0)


@pytest.fixture(scope='module')
def sampled():
    """A config of a sample, its model and what its subnets cost."""
    cfg = Config.fromfile(str(ROOT / 'configs' / 'shapes_sample_accuracy.py'))
    model = build_model(cfg)
    return cfg, model, CostModel(model, [cfg.test_cfg.image_size])


def test_ledgers_of_another_model(tmp_path, sampled):
    cfg, model, cost_model = sampled
    cfg, path = copy.deepcopy(cfg), tmp_path / 'ledger.jsonl'
    identity = dict(space=space_hash(cost_model.space), **settings_of(model=cfg.model, test_dataloader=dict(a=1)))
    path.write_text(json.dumps(dict(identity=identity)) + '\n')
    check_same_model(path, cfg, model)
    cfg.model.data_preprocessor.mean = [1, 2, 3]
    with pytest.raises(ConfigError, match=r'ledger.jsonl: .* in model.data_preprocessor.mean .*\[1, 2, 3\] here'):
        check_same_model(path, cfg, model)
    path.write_text(json.dumps(dict(identity=dict(space='a' * 64, supernet='b'))) + '\n')  # of an earlier version
    with pytest.raises(ConfigError, match='ledger.jsonl: .* which differs in space; give'):
        check_same_model(path, cfg, model)
    cfg.test_cfg.pop('image_size')  # not known
    check_same_model(path, cfg, model)
    for text in ('no JSON', '[1]', line_of(subnet(3, .1))):
        path.write_text(text + '\n')
        check_same_model(path, sampled[0], model)


def line_of(own):
    return json.dumps(dict(number=own.number, subnet_settings=own.settings, image_size=list(own.image_size),
                           macs=own.macs, params=own.params, latency_ms=None, metrics=own.metrics))


def test_ledgers(tmp_path, sampled):
    cfg, model, cost_model = sampled
    space, size = cost_model.space, tuple(cfg.test_cfg.image_size)
    file = tmp_path / 'sample_accuracy' / 'ledger.jsonl'
    file.parent.mkdir()
    whole = {number: json.loads(line_of(subnet(number, .1, size, space[number].to_dict()))) for number in (3, 7, 11)}
    others = [{**whole[3], 'number': 4}, {**whole[3], 'subnet_settings': [1]}, {**whole[7], 'image_size': None},
              {**whole[7], 'image_size': [10**30, 1]}, {**whole[3], 'subnet_settings': {}}, {**whole[3], 'metrics': 5},
              {**whole[3], 'metrics': {METRIC: .9}}]
    lines = [json.dumps(own).encode() for own in (
        dict(identity={}), *others[:6], {**whole[3], 'macs': -5}, whole[7], {'number': 11, **whole[11], 'params': 'x'},
        others[6])]
    file.write_bytes(b'\n'.join([*lines[:2], b'\xff\xfe', b'\x00' * 600, lines[8][:40], *lines[2:], lines[7][:30]]))
    for path in (file, file.parent, tmp_path):
        assert find_ledger(path) == file
    for sizes in (cfg.test_cfg.image_size, [cfg.test_cfg.image_size]):
        found = read_ledger(file, model, sizes)
        assert [own.number for own in found] == [3, 7, 11]
        for own in found:
            cost = cost_model(space[own.number])
            assert (own.macs, own.params, own.image_size) == (cost.macs, cost.params, size)
            assert (own.settings, own.metric(METRIC)) == (space[own.number].to_dict(), .1)
    with pytest.raises(ConfigError, match='ledger not found: .*none.jsonl'):
        find_ledger(tmp_path / 'none.jsonl')
    file.write_text('[1]\n2\n\n')
    with pytest.raises(ConfigError, match='no evaluated subnets of this model'):
        read_ledger(file, model)


def test_metrics_that_rank(tmp_path):
    path = Path('ledger.jsonl')
    subnets = [EvaluatedSubnet(number, {}, (8, 8), 1, 1, metrics=own) for number, own in enumerate([
        dict(none=None, some=None, all=1, kind='a'), dict(none=None, some=.5, all=2), {}])]
    assert check_metric(subnets, None, path) == check_metric(subnets, 'all', path) == 'all'
    for name in ('none', 'some', 'kind', 'missing'):
        with pytest.raises(ConfigError, match=f"--metric must be one of all, got '{name}'"):
            check_metric(subnets, name, path)
    with pytest.raises(ConfigError, match='no metric is a number for each subnet that has it'):
        check_metric(subnets[2:], None, path)


def rates(schedulers, steps):
    """Learning rates of so many epochs."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.)
    built = [dict(LinearLR=LinearLR, CosineAnnealingLR=CosineAnnealingLR, MultiStepLR=MultiStepLR)[own.pop('type')](
        optimizer, **own) for own in copy.deepcopy(schedulers)]
    values = []
    for _step in range(steps):
        values.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for own in built:
            own.step()
    return values


def test_a_shorter_schedule_has_the_same_shape():
    schedulers = [dict(type='LinearLR', start_factor=.5, begin=0, end=10),
                  dict(type='CosineAnnealingLR', begin=10, end=60, T_max=50),
                  dict(type='MultiStepLR', milestones=[70, 90], gamma=.5)]
    shorter = _scaled(schedulers, .1)
    assert shorter == [dict(type='LinearLR', start_factor=.5, begin=0, end=1),
                       dict(type='CosineAnnealingLR', begin=1, end=6, T_max=5),
                       dict(type='MultiStepLR', milestones=[7, 9], gamma=.5)]
    for long, short in ((schedulers[1:2], shorter[1:2]), (schedulers[2:], shorter[2:])):
        # MMEngine's last step is the one before the end.
        assert rates(short, 10)[:6] == pytest.approx(rates(long, 100)[:60:10])
    assert rates(shorter[2:], 10) == rates(schedulers[2:], 100)[::10]
    several = dict(first=schedulers[:1], second=schedulers[2])
    assert _scaled(several, .001) == dict(
        first=[dict(schedulers[0], end=1)], second=dict(schedulers[2], milestones=[1, 1]))
    assert schedulers[0]['end'] == 10


@pytest.fixture(scope='module')
def workspace(tmp_path_factory):
    """Data, a config and a ledger with invented accuracies."""
    folder = tmp_path_factory.mktemp('trust')
    python('tools/make_shapes.py', folder / 'data', '--train', 12, '--val', 4, '--size', 64)
    (folder / 'kill_parent.py').write_text(HOOK)
    sys.path.insert(0, str(folder))
    base = str(ROOT / 'configs' / 'shapes_supnet.py')
    (folder / 'config.py').write_text(CONFIG.format(base=base, data=str(folder / 'data')))
    cost_model, rng = CostModel(build_model(read(folder)), [(128, 128)]), random.Random(0)
    lines = []
    for _ in range(20):
        own = cost_model.space.sample_uniform(rng)
        cost, number = cost_model(own), cost_model.space.index(own)
        lines.append(line_of(EvaluatedSubnet(number, own.to_dict(), (128, 128), cost.macs, cost.params, metrics={
            METRIC: rng.random(), 'coco/bbox_mAP_50': rng.random()})))
    (folder / 'ledger.jsonl').write_text('\n'.join([json.dumps(dict(identity={})), *lines, '']))
    yield folder
    sys.path.remove(str(folder))


def read(workspace):
    return Config.fromfile(str(workspace / 'config.py'))


def test_config_of_a_training(workspace):
    cfg = read(workspace)
    check = TrustCheck(cfg, workspace, 4, epochs=4, seed=3)
    for own in check.subnets:
        plain = check.configs[own.number]
        assert 'space' not in repr(plain.model)
        assert sum(part.numel() for part in build_model(plain).parameters()) == own.params
        assert plain.train_cfg == dict(type='EpochBasedTrainLoop', max_epochs=4, val_begin=5)
        assert plain.val_cfg == dict(type='ValLoop')
        assert [own['end'] for own in plain.param_scheduler] == [12, 4]  # 50 iterations and 16 epochs, a quarter
        assert [hook['type'] for hook in plain.custom_hooks] == [
            'KillParentHook', 'mmbignas.ranking.trust.TrainedAloneHook']
        assert plain.default_hooks.checkpoint == dict(
            type='CheckpointHook', by_epoch=True, interval=1, max_keep_ckpts=2)
        assert plain.randomness.seed == 3 and plain.load_from is None
        assert plain.optim_wrapper == cfg.optim_wrapper and plain.train_dataloader == cfg.train_dataloader
    assert TrustCheck(cfg, workspace, 4).configs[check.subnets[0].number].param_scheduler == cfg.param_scheduler


def test_config_of_a_training_by_iterations(workspace):
    cfg = read(workspace)
    cfg.train_cfg = dict(type='mmbignas.SandwichIterTrainLoop', max_iters=1000, val_interval=10)
    check = TrustCheck(cfg, workspace, 3, max_iters=500, metric='coco/bbox_mAP_50')
    cfg.test_cfg.metric1 = 'coco/bbox_mAP_50'
    assert TrustCheck(cfg, workspace, 3, max_iters=500).metric == check.metric == 'coco/bbox_mAP_50'
    plain = check.configs[check.subnets[0].number]
    assert plain.train_cfg == dict(type='IterBasedTrainLoop', max_iters=500, val_begin=501)
    assert (plain.default_hooks.checkpoint.interval, plain.default_hooks.checkpoint.by_epoch) == (25, False)
    assert [own['end'] for own in plain.param_scheduler] == [25, 8]
    assert check.metric == 'coco/bbox_mAP_50'


@pytest.mark.parametrize(('changes', 'arguments', 'parts'), [
    ({}, dict(epochs=0), ['--epochs must be an integer >= 1', 'got 0']),
    ({}, dict(max_iters=10), ['--max-iters must be left out for EpochBasedTrainLoop', '--epochs', 'got 10']),
    ({}, dict(metric='coco/mAP'), [f'--metric must be one of {METRIC}, coco/bbox_mAP_50', "got 'coco/mAP'"]),
    ({}, dict(count=21), ['--count must be an integer from 3 to 20', 'got 21']),
    ({}, dict(ledger='/none'), ['ledger not found: /none']),
    (dict(train_cfg=dict(type='OwnLoop', max_epochs=2)), {}, ['train_cfg.type must be one of', "'OwnLoop'"]),
    (dict(val_evaluator=None), {}, ['val_evaluator']),
    ({'val_evaluator.ann_file': 'none.json'}, {}, ['val_evaluator.ann_file', 'none.json']),
    ({'model.backbone.depth': [1, 1, 1, 1, 1]}, {}, ['backbone', 'depth']),
])
def test_what_cannot_work_is_refused_before_training(workspace, changes, arguments, parts):
    cfg = read(workspace)
    cfg.merge_from_dict(changes)
    if 'train_cfg' in changes or 'val_evaluator' in changes:
        cfg.update(changes)
    if 'model.backbone.depth' in changes:
        cfg.model.backbone.depth = [1, 1, 1, 1, 1]
    with pytest.raises(ConfigError) as error:
        TrustCheck(cfg, **{'ledger': workspace, 'count': 3, **arguments})
    for part in parts:
        assert part in str(error.value)


def test_each_sees_images_of_its_own_size(workspace, tmp_path):
    """By a data preprocessor that resizes, where the pipeline gives another size or does not tell."""
    cfg = read(workspace)
    lines = read_ledger(workspace / 'ledger.jsonl', build_model(cfg))
    sizes = [(128, 128), (96, 96), (64, 96), (96, 64)] * 5
    (tmp_path / 'ledger.jsonl').write_text('\n'.join(line_of(EvaluatedSubnet(
        own.number, {**own.settings, 'image_size': list(size)}, size, own.macs, own.params, metrics=own.metrics))
        for own, size in zip(lines, sizes, strict=True)))

    def found(own, check):
        preprocessor = check.configs[own.number].model.data_preprocessor
        if preprocessor.type != 'mmbignas.ResizedDataPreprocessor':
            assert preprocessor.type == 'DetDataPreprocessor'
            return None
        assert preprocessor.preprocessor == cfg.model.data_preprocessor
        return tuple(preprocessor.image_size)

    assert pipeline_size(cfg) == (128, 128)
    check = TrustCheck(cfg, tmp_path, 20)
    assert {own.image_size for own in check.subnets} == set(sizes)
    for own in check.subnets:
        assert found(own, check) == (None if own.image_size == (128, 128) else own.image_size)
    cfg.val_dataloader.dataset.pipeline = [dict(type='LoadImageFromFile')]
    check = TrustCheck(cfg, tmp_path, 20)
    assert all(found(own, check) == own.image_size for own in check.subnets)


def run_tool(workspace, code=0):
    return python('tools/trust.py', workspace / 'config.py', workspace, '--count', 3, '--epochs', 2, '--out',
                  workspace / 'out', env=environment(PYTHONPATH=f'{ROOT}:{workspace}'), code=code)


@pytest.fixture(scope='module')
def finished(workspace):
    """A run that was killed in the second epoch of the second training and then went on; what it said."""
    numbers = [own.number for own in TrustCheck(read(workspace), workspace, 3).subnets]
    (workspace / 'data' / 'kill').write_text(f'subnet{numbers[1]}')
    outputs = [run_tool(workspace, code=-signal.SIGKILL)]
    pid = int((workspace / 'data' / 'pid').read_text())
    for _ in range(100):
        if not Path('/proc', str(pid)).exists() or 'zombie' in Path('/proc', str(pid), 'status').read_text():
            break
        time.sleep(.1)
    else:
        os.kill(pid, signal.SIGKILL)
        raise AssertionError('the training outlived the tool')
    assert (workspace / 'out' / f'subnet{numbers[1]}' / 'epoch_1.pth').exists()
    outputs.append(run_tool(workspace))
    return numbers, outputs


@pytest.mark.slow
def test_goes_on_after_kill(workspace, finished):
    numbers, (first, second) = finished
    begun = [re.findall(r'^(\d)/3: subnet (\d+)', output, re.MULTILINE) for output in (first, second)]
    assert begun == [[(str(index + 1), str(numbers[index])) for index in indices] for indices in ((0, 1), (1, 2))]
    assert re.search(r'^2/3: .* about \d:\d\d:\d\d left$', second, re.MULTILINE)
    out = workspace / 'out'
    logs = [(out / f'subnet{number}' / 'train.log').read_text() for number in numbers]
    assert ['resumed epoch: 1, iter: 3' in log for log in logs] == [False, True, False]
    for number in numbers:
        assert [path.name for path in (out / f'subnet{number}').glob('*.pth')] == ['epoch_2.pth']


@pytest.mark.slow
def test_trainings_are_ordinary_ones(workspace, finished):
    """The one that was interrupted too: MMEngine's training, from the same config, and its validation."""
    number = finished[0][1]
    folder = workspace / 'out' / f'subnet{number}'
    cfg = Config.fromfile(str(folder / 'config.py'))
    cfg.work_dir, cfg.resume = str(workspace / 'ordinary'), False
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2)
    cfg.custom_hooks = cfg.custom_hooks[:-1]
    runner = Runner.from_cfg(cfg)
    runner.train()
    ours, theirs = (torch.load(path / 'epoch_2.pth')['state_dict'] for path in (folder, workspace / 'ordinary'))
    assert_same_state(ours, theirs)
    expected = runner.val()
    found = json.loads((folder / 'metrics.json').read_text())
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert round(found[name], 3) == pytest.approx(value)


@pytest.mark.slow
def test_result(workspace, finished):
    numbers, (_, output) = finished
    out, known = workspace / 'out', {own.number: own for own in read_ledger(
        workspace / 'ledger.jsonl', build_model(read(workspace)))}
    result = json.loads((out / 'trust.json').read_text())
    lines = [json.loads(line) for line in (out / 'trust.jsonl').read_text().splitlines()][1:]
    assert [line['number'] for line in lines] == [own['number'] for own in result['subnets']] == numbers
    for own, line in zip(result['subnets'], lines):
        assert own['supernet'] == known[own['number']].metric(METRIC)
        assert own['alone'] == line['metrics'].get(METRIC, 0.)
        assert own['params'] == known[own['number']].params
    assert 'Kendall tau' in output and 'n = 3' in output and (out / 'trust.png').stat().st_size > 0


@pytest.mark.slow
def test_a_finished_run_only_says_so(workspace, finished):
    checks = [TrustCheck(read(workspace), workspace, 3, epochs=2, log=lambda text: None) for _ in range(2)]
    comparison = checks[0].run(workspace / 'out')
    assert comparison.report() in finished[1][1]


@pytest.mark.slow
@pytest.mark.parametrize(('arguments', 'part'), [
    (dict(epochs=3), 'max_epochs'), (dict(epochs=2, seed=1), 'seed'), (dict(epochs=2, count=4), 'choice of subnets'),
    (dict(epochs=2, metric='coco/bbox_mAP_50'), 'metric')])
def test_another_check_in_the_same_folder_is_refused(workspace, finished, arguments, part):
    with pytest.raises(ConfigError, match=f'trust.jsonl: holds figures that .* differs in .*{part}'):
        TrustCheck(read(workspace), workspace, **{'count': 3, **arguments}).run(workspace / 'out')


@pytest.mark.slow
def test_another_config_or_ledger_in_the_same_folder_is_refused(workspace, finished, tmp_path):
    cfg = read(workspace)
    cfg.optim_wrapper.optimizer.lr = 1.
    with pytest.raises(ConfigError, match='differs in optim_wrapper.optimizer.lr .0.002 there, 1.0 here'):
        TrustCheck(cfg, workspace, 3, epochs=2).run(workspace / 'out')
    (tmp_path / 'ledger.jsonl').write_text((workspace / 'ledger.jsonl').read_text() + '{}\n')
    with pytest.raises(ConfigError, match='which differs in ledger'):
        TrustCheck(read(workspace), tmp_path, 3, epochs=2).run(workspace / 'out')


@pytest.mark.slow
def test_a_training_that_fails(workspace, tmp_path):
    """Its last words are passed on."""
    cfg = read(workspace)
    cfg.optim_wrapper.optimizer.type = 'NoOptimizer'
    with pytest.raises(RuntimeError, match='(?s)exit code 2; .*train.log.*error: optim_wrapper.optimizer.type'):
        TrustCheck(cfg, workspace, 3, epochs=1, log=lambda text: None).run(tmp_path)
    assert not (tmp_path / 'trust.json').exists()


def test_errors_of_the_tool_are_one_line(workspace, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['trust.py', str(workspace / 'config.py'), str(workspace), '--epochs', '0'])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / 'tools' / 'trust.py'), run_name='__main__')
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith('error: --epochs must be an integer >= 1')
