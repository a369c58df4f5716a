"""Many subnets, each calibrated and evaluated: the right figures, none twice, none lost, and nothing else changes."""
import copy
import csv
import json
import math
import random
import re
import shlex
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from torch.nn import functional as F

from mmbignas.cost import CostModel
from mmbignas.data.pipeline_size import image_sizes_of, interpolation_of
from mmbignas.errors import ConfigError
from mmbignas.supernet import Supernet
from mmbignas.supernet.calibration import calibrate_bn
from mmbignas.utils.distributed import Alone
from tests.distributed import run_processes
from tests.evaluation.test_subnet_val_loop import trained_model
from tests.toy import (
    TellingMetric,
    ToyDataset,
    ToyMetric,
    build_runner,
    calibration,
    calibration_batches,
    dataloader,
    expected_metrics,
)

SIZE = [6, 6]


def runner_for(folder, model=None, hooks=None, stage='test', metric=None, cfg=None, loop='SampleAccuracyLoop', **own):
    """A Runner that samples the accuracy of a toy's subnets."""
    own = {'type': f'mmbignas.{loop}', 'calib_bn': True, 'image_size': SIZE, **own}
    runner = build_runner(folder, model or trained_model(), hooks=[calibration()] if hooks is None else hooks,
                          metric=metric, **{f'{stage}_cfg': own})
    runner.cfg = Config(cfg or {})
    return runner


def lines_of(folder, name='sample_accuracy'):
    return [json.loads(line) for line in Path(folder, name, 'ledger.jsonl').read_text().splitlines()[1:]]


class CountingMetric(ToyMetric):
    """Counts the evaluations, and fails in one of them."""

    def __init__(self, fail=None):
        super().__init__()
        self.count, self.fail = 0, fail

    def compute_metrics(self, results):
        self.count += 1
        if self.count == self.fail:
            raise ArithmeticError('broken')
        return super().compute_metrics(results)


@pytest.mark.parametrize(('stage', 'calib_bn'), [('test', True), ('test', False), ('val', True)])
def test_figures_of_the_whole_space(tmp_path, stage, calib_bn):
    model = trained_model()
    cost_model, before = CostModel(copy.deepcopy(model), [SIZE]), copy.deepcopy(model.state_dict())
    space = cost_model.space
    runner = runner_for(tmp_path, model, stage=stage, calib_bn=calib_bn, subnet_sample_mode='traverse',
                        subnet_count=1000)
    current = Supernet(model).apply(space.sample(random.Random(3)))
    states = random.getstate(), torch.get_rng_state()
    metrics = runner.test() if stage == 'test' else runner.val()
    assert random.getstate() == states[0] and torch.equal(torch.get_rng_state(), states[1])
    assert Supernet(model).current == current
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    lines = lines_of(tmp_path)
    assert [line['number'] for line in lines] == list(range(space.size))
    for number, line in enumerate(lines):
        cost = cost_model(space[number])
        assert (line['macs'], line['ops'], line['params']) == (cost.macs, cost.ops, cost.params)
        assert line['subnet_settings'] == space[number].to_dict()
        assert (line['image_size'], line['latency_ms'], line['seed']) == (SIZE, None, 0)
        assert line['metrics'] == pytest.approx(expected_metrics(model, space[number], calib_bn), rel=1e-5)
    best = max(lines, key=lambda line: (line['metrics']['toy/accuracy'], -line['macs']))
    assert metrics == {'sample_accuracy/subnets': space.size, 'sample_accuracy/best_macs': best['macs'],
                       'sample_accuracy/best_toy/accuracy': best['metrics']['toy/accuracy']}


def test_results(tmp_path):
    baseline = CostModel(trained_model(), [SIZE])
    baseline = baseline(baseline.space[20]).macs
    runner = runner_for(tmp_path, subnet_count=30, metric1='toy/likelihood', metric2='toy/accuracy',
                        baseline_flops=baseline, subnet_sample_mode='uniform')
    metrics = runner.test()
    lines = {line['number']: line for line in lines_of(tmp_path)}
    assert len(lines) == 30
    folder = tmp_path / 'sample_accuracy'
    assert {path.name for path in folder.iterdir() if not path.name.startswith('.')} == {
        'ledger.jsonl', 'config.py', 'results.json', 'subnets.csv', 'accuracy_macs.png', 'accuracy_params.png',
        'subnets.html'}
    results = json.loads((folder / 'results.json').read_text())
    best = max(lines.values(), key=lambda line: line['metrics']['toy/likelihood'])
    assert results['best']['number'] == best['number']
    assert metrics['sample_accuracy/best_toy/accuracy'] == best['metrics']['toy/accuracy']
    near = [line for line in lines.values() if abs(line['macs'] - baseline) * 100 <= baseline]
    assert len(results['marks']['baseline']['best']) == min(len(near), 10) > 0
    front = [line['number'] for line in sorted(lines.values(), key=lambda line: line['macs']) if not any(
        other['macs'] <= line['macs'] and other['metrics']['toy/likelihood'] >= line['metrics']['toy/likelihood']
        and other['number'] != line['number'] for other in lines.values())]
    assert [own['number'] for own in results['fronts']['macs']] == front
    with (folder / 'subnets.csv').open() as file:
        rows = {int(row['number']): row for row in csv.DictReader(file)}
    assert rows.keys() == lines.keys()
    for number, row in rows.items():
        assert float(row['toy/likelihood']) == lines[number]['metrics']['toy/likelihood']
    assert 'export_subnet' in (folder / 'subnets.html').read_text()


def commands(folder):
    """Number of a subnet -> the command on the page that exports it, as words."""
    facts = json.loads(re.search(r'id="subnets">(\[.*?\])</script>', (folder / 'subnets.html').read_text())[1])
    words = [shlex.split(own['command']) for own in facts]
    return {int(own[own.index('--subnet') + 1]): own for own in words}


def given_weights(runner, folder):
    """Let a run begin with a checkpoint; return its path."""
    path = str(folder / 'supernet.pth')
    torch.save(dict(state_dict=runner.model.state_dict()), path)
    runner._load_from = path
    return path


def test_subnets_of_a_validation_are_exported_at_its_sizes(tmp_path):
    """What a test of the same config would do does not matter: with other sizes a number is another subnet."""
    own = dict(image_size=[[4, 4], [6, 6]], interpolation_type='area')
    cfg = dict(val_cfg=dict(own, type='SampleAccuracyLoop'),
               test_cfg=dict(type='SubnetValLoop', image_size=[[6, 6]], interpolation_type='nearest'))
    runner = runner_for(tmp_path, stage='val', cfg=cfg, subnet_count=3, **own)
    checkpoint = given_weights(runner, tmp_path)
    runner.val()
    folder = tmp_path / 'sample_accuracy'
    for number, words in commands(folder).items():
        assert words[-6:] == [f'{folder}/config.py', checkpoint, '--subnet', str(number), '--out',
                              f'exported/subnet{number}']
    written = Config.fromfile(str(folder / 'config.py'))
    assert image_sizes_of(written) == [[4, 4], [6, 6]] and interpolation_of(written) == 'area'
    assert runner.cfg.test_cfg.image_size == [[6, 6]]


def test_the_checkpoint_of_a_training_is_not_the_one_it_began_with(tmp_path):
    runner = runner_for(tmp_path, stage='val', subnet_count=2)
    given_weights(runner, tmp_path)
    runner.train()
    [folder] = (tmp_path / 'sample_accuracy').iterdir()
    assert all(words[-5] == 'CHECKPOINT' for words in commands(folder).values())


@pytest.mark.parametrize('first', [1, 5, 12])
def test_an_interrupted_run_goes_on(tmp_path, first):
    arguments = dict(subnet_count=12, seed=4)
    whole = runner_for(tmp_path / 'whole', **arguments)
    whole.test()
    metric = CountingMetric(fail=first)
    with pytest.raises(ArithmeticError):
        runner_for(tmp_path / 'own', metric=metric, **arguments).test()
    path = tmp_path / 'own' / 'sample_accuracy' / 'ledger.jsonl'
    assert len(lines_of(tmp_path / 'own')) == first - 1
    path.write_bytes(path.read_bytes() + b'{"number": 3, "macs":')  # of a process that was killed
    metric = CountingMetric()
    runner_for(tmp_path / 'own', metric=metric, **arguments).test()
    assert metric.count == 12 - (first - 1)

    def without_seconds(folder):
        return [{name: value for name, value in line.items() if name != 'seconds'}
                for line in map(json.loads, (folder / 'sample_accuracy' / 'ledger.jsonl').read_text().splitlines()[1:])]

    text = path.read_text().splitlines()
    path.write_text('\n'.join(line for line in text if not line.endswith('"macs":')) + '\n')
    assert without_seconds(tmp_path / 'own') == without_seconds(tmp_path / 'whole')
    # Nothing is left to do; more subnets go on with the same draws.
    metric = CountingMetric()
    runner_for(tmp_path / 'own', metric=metric, **arguments).test()
    assert metric.count == 0
    more = {**arguments, 'subnet_count': 20}
    runner_for(tmp_path / 'own', metric=metric, **more).test()
    assert metric.count == 8
    assert [line['number'] for line in lines_of(tmp_path / 'own')][:12] == [
        line['number'] for line in lines_of(tmp_path / 'whole')]


def test_what_a_ledger_says_of_costs_has_no_effect(tmp_path):
    """Costs follow from a number; lines that are damaged, or whose number and settings differ, are done again."""
    arguments = dict(subnet_count=8, baseline_flops=6000)
    runner_for(tmp_path, **arguments).test()
    folder = tmp_path / 'sample_accuracy'
    expected, path = json.loads((folder / 'results.json').read_text()), folder / 'ledger.jsonl'
    header, *lines = path.read_bytes().splitlines()
    lines = [json.loads(line) for line in lines]
    lines[0].update(macs=-5, params='x', latency_ms=1e-9)
    del lines[1]['macs'], lines[1]['seconds'], lines[1]['image_size'], lines[1]['ops']
    lines[2].update(image_size=None, macs=None)
    broken = [{**lines[3], 'subnet_settings': [1]}, {**lines[4], 'number': lines[5]['number']},
              {**lines[6], 'metrics': None}]
    texts = [json.dumps(line).encode() for line in [*lines[:3], *broken, lines[5], lines[7]]]
    path.write_bytes(b'\n'.join([header, texts[0][:30] + b'\xff' + texts[0][31:], b'\xfe', *texts, b'']))
    metric = CountingMetric()
    metrics = runner_for(tmp_path, metric=metric, **arguments).test()
    assert metric.count == 3
    assert json.loads((folder / 'results.json').read_text()) == expected
    assert metrics['sample_accuracy/best_macs'] == expected['best']['macs'] > 0


@pytest.mark.parametrize(('change', 'named'), [
    (dict(model=trained_model(seed=1)), 'weights'), (dict(image_size=[[6, 6], [3, 3]]), 'space'),
    (dict(hooks=[], calib_bn=False), r'test_cfg.calib_bn \(True there, False here\)')])
def test_figures_of_something_else_are_refused(tmp_path, change, named):
    runner_for(tmp_path, subnet_count=2).test()
    with pytest.raises(ConfigError, match=f'ledger.jsonl: holds figures that .* differs in {named}'):
        runner_for(tmp_path, subnet_count=2, **change).test()


def test_other_data_are_refused(tmp_path):
    runner_for(tmp_path, subnet_count=2).test()
    runner = runner_for(tmp_path, subnet_count=2)
    runner._test_dataloader = dataloader(11, 4, seed=1)
    with pytest.raises(ConfigError, match=r'holds figures that .* differs in data.length .10 there, 11 here'):
        runner.test()


def test_metrics_that_do_not_exist(tmp_path):
    metric = CountingMetric()
    with pytest.raises(ConfigError, match="test_cfg.metric1 must be a name that begins with toy/, got 'bbox_mAP'"):
        runner_for(tmp_path, subnet_count=3, metric=metric, metric1='bbox_mAP').test()
    assert metric.count == 0
    with pytest.raises(ConfigError, match="test_cfg.metric1 must be toy/accuracy or toy/likelihood, got 'toy/mAP'"):
        runner_for(tmp_path, subnet_count=3, metric=metric, metric1='toy/mAP').test()
    assert metric.count == 1
    runner_for(tmp_path, subnet_count=3).test()
    with pytest.raises(ConfigError, match="test_cfg.metric2 must be toy/accuracy or .*, got 'toy/x'"):
        runner_for(tmp_path, subnet_count=5, metric=metric, metric2='toy/x').test()
    assert metric.count == 1  # known from the lines that are there


@pytest.mark.parametrize('value', [float('nan'), float('inf'), None])
def test_a_metric_without_a_value_is_worth_nothing(tmp_path, value):
    first = {'mAP': value, 'other': .1} if value is not None else {'other': .1}
    turns = [{'mAP': -.5, 'other': .1}, first, {'mAP': -.75}, {'mAP': -.6, 'other': .1}]
    arguments = dict(subnet_count=4, metric1='coco/mAP', metric2='coco/other')
    runner_for(tmp_path / 'a', metric=TellingMetric(turns), **arguments).test()
    results = json.loads((tmp_path / 'a' / 'sample_accuracy' / 'results.json').read_text())
    best = results['best']['metrics'].get('coco/mAP')  # what is no number is not 0; what is missing is
    assert (results['evaluated'], best) == (4, -.5 if value is not None else None)
    runner_for(tmp_path / 'a', metric=TellingMetric([]), **arguments).test()  # and on a resume


@pytest.mark.parametrize('loop', ['SampleAccuracyLoop', 'SubnetSearchLoop'])
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_a_metric_to_rank_by_that_is_no_number(tmp_path, loop, value):
    """Such as the precision of a class without a box: an error after the first subnet, and `-` where it is shown."""
    metric = TellingMetric([{'mAP': value, 'other': .1}] * 3)
    with pytest.raises(ConfigError, match="test_cfg.metric1 must be a metric that is a number for these data, such as "
                       "coco/other, got 'coco/mAP'"):
        runner_for(tmp_path, metric=metric, loop=loop, subnet_count=3, metric1='coco/mAP').test()
    assert metric.count == 1
    metric = TellingMetric([{'mAP': value, 'other': .1}, {}, {'mAP': value, 'other': .2}])
    metrics = runner_for(tmp_path / 'b', metric=metric, loop=loop, subnet_count=3, metric1='coco/other',
                         metric2='coco/mAP').test()
    folder = tmp_path / 'b' / loop.removesuffix('Loop').replace('SampleAccuracy', 'sample_accuracy').replace(
        'SubnetSearch', 'search')
    page = (folder / 'subnets.html').read_text()
    assert page.count('coco/mAP -') > 0 and 'coco/mAP 0.0000' not in page
    assert math.isnan(next(own for name, own in metrics.items() if name.endswith('best_coco/mAP')))


def test_an_evaluator_that_is_silent_at_first(tmp_path):
    """One finds nothing, the other has a metric: the first one's may still come."""
    runner = runner_for(tmp_path, subnet_count=3, metric1='coco/mAP')
    runner._test_evaluator = [TellingMetric([{}, {}, {'mAP': .5}]), ToyMetric()]
    assert runner.test()['sample_accuracy/best_coco/mAP'] == .5
    runner = runner_for(tmp_path / 'b', subnet_count=3, metric1='coco/mAPP')
    runner._test_evaluator = [TellingMetric([{}, {'mAP': .5}]), ToyMetric()]
    with pytest.raises(ConfigError, match="metric1 must be toy/accuracy or .*coco/mAP, got 'coco/mAPP'"):
        runner.test()


def test_no_detections_count_as_nothing(tmp_path):
    metric = TellingMetric([{}, {'mAP': .5}, {}, {'mAP': float('nan')}])
    metrics = runner_for(tmp_path / 'a', subnet_count=4, metric=metric, metric1='coco/mAP').test()
    assert [line['metrics'] for line in lines_of(tmp_path / 'a')] == [{}, {'coco/mAP': .5}, {}, {'coco/mAP': None}]
    assert metrics['sample_accuracy/best_coco/mAP'] == .5
    metrics = runner_for(tmp_path / 'b', subnet_count=4, metric=TellingMetric([{}] * 4)).test()
    assert metrics['sample_accuracy/subnets'] == 4


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(flops_range=['1G', '2G']), r'test_cfg.flops_range must be a range that overlaps .*, got \[1000000000, '),
    (dict(subnet_count=0), 'test_cfg.subnet_count.* 0'),
    (dict(subnet_sample_mode='all'), "test_cfg.subnet_sample_mode.*'all'"),
    (dict(image_size=None), 'test_cfg.image_size.*None'),
    (dict(metric1=3), 'test_cfg.metric1 must be the name of a metric, .*, got 3'),
    (dict(baseline_flops='20GFLOPs'), 'test_cfg.baseline_flops must be .*, not FLOPs'),
    (dict(parallel='rank'), "test_cfg.parallel must be one of images, subnet, got 'rank'"),
    (dict(predicted_count=-1), 'test_cfg.predicted_count must be an integer >= 0, got -1'),
    (dict(calib_bn='both'), "test_cfg.calib_bn must be True or False, got 'both'"),
    (dict(val_images=0), 'test_cfg.val_images must be an integer >= 1, or None, got 0'),
    (dict(val_images=5), 'test_cfg.val_images.*ToyDataset, which has no get_subset'),
    (dict(seed=None), 'test_cfg.seed must be an integer >= 0, got None'),
    (dict(fp16='yes'), "test_cfg.fp16 must be True or False, got 'yes'"),
    (dict(sample_with_finetune=dict(iters=3)), "sample_with_finetune must be a dict with keys .*, got key 'iters'"),
    (dict(sample_with_finetune=dict(max_iters=0)), 'sample_with_finetune.max_iters must be an integer >= 1, got 0'),
    (dict(sample_with_finetune=True), 'sample_with_finetune must be False for a config without train_dataloader'),
    (dict(calib_bn=True, hooks=[]), 'test_cfg.calib_bn must be False without custom_hooks='),
    (dict(lut_path='none.json'), 'none.json')])
def test_bad_arguments(tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message):
        runner_for(tmp_path, **arguments).test()
    assert not (tmp_path / 'sample_accuracy').exists()


def test_workers_are_started_once(tmp_path):
    runner = runner_for(tmp_path, subnet_count=3)
    runner._test_dataloader['num_workers'] = 1
    workers = []

    class Watching(CountingMetric):
        def compute_metrics(self, results):
            workers.append(runner.test_loop.dataloader._iterator._workers[0].pid)
            return super().compute_metrics(results)

    runner._test_evaluator = [Watching()]
    runner.test()
    assert len(workers) == 3 and len(set(workers)) == 1


# -- image sizes ------------------------------------------------------------------------------------------------------


def metrics_at(model, subnet, size):
    """As :func:`expected_metrics`, on resized images."""
    model, dataset = copy.deepcopy(model).eval(), ToyDataset(10, seed=1)
    Supernet(model).apply({path: subnet[path] for path in subnet})

    def resized(images):
        images = images * 2 - .5
        return images if list(size) == SIZE else F.interpolate(images, list(size), mode='bicubic', antialias=True)

    model.data_preprocessor.forward = lambda data, training=False: {**data, 'inputs': resized(data['inputs'])}
    calibrate_bn(model, calibration_batches())
    with torch.no_grad():
        logits = model.eval()(resized(dataset.images)).double()
    return dict(accuracy=(logits.argmax(1) == dataset.labels).double().mean().item(),
                likelihood=logits.log_softmax(1)[torch.arange(10), dataset.labels].mean().item())


def test_several_image_sizes(tmp_path):
    model = trained_model()
    sizes = [[6, 6], [4, 4]]
    runner_for(tmp_path, model, image_size=sizes, subnet_count=12, subnet_sample_mode='traverse',
               baseline_flops=30000).test()
    space = CostModel(copy.deepcopy(model), sizes).space
    lines = lines_of(tmp_path)
    assert {tuple(line['image_size']) for line in lines} == {(4, 4), (6, 6)}
    for line in lines:
        subnet = space[line['number']]
        assert line['subnet_settings']['image_size'] == line['image_size'] == list(subnet.image_size)
        for name, value in metrics_at(model, subnet, line['image_size']).items():
            assert line['metrics'][f'toy/{name}'] == pytest.approx(value, rel=1e-5)
    results = json.loads((tmp_path / 'sample_accuracy' / 'results.json').read_text())
    assert [own['image_size'] for own in results['image_sizes']] == [[4, 4], [6, 6]]


# -- fine-tuning ------------------------------------------------------------------------------------------------------

DATASETS.register_module(name='TunedToyDataset', module=ToyDataset, force=True)
TRAINING = dict(
    train_dataloader={**dataloader(18), 'dataset': dict(type='TunedToyDataset', size=18)},
    optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=.5, momentum=.9)))


def test_fine_tuning_leaves_the_supernet_alone(tmp_path):
    model = trained_model()
    before = copy.deepcopy(model.state_dict())
    model.head.weight.grad = gradient = torch.ones_like(model.head.weight)
    runner_for(tmp_path, model, cfg=TRAINING, subnet_count=8, sample_with_finetune=dict(max_iters=5)).test()
    assert model.head.weight.grad is gradient and gradient.eq(1).all()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    order = torch.randperm(18, generator=torch.Generator().manual_seed(0)).split(6)  # three batches, then again
    dataset, space = ToyDataset(18), Supernet(model).space
    for line in lines_of(tmp_path):
        own = copy.deepcopy(model).train()
        own.zero_grad()
        Supernet(own).apply(space[line['number']])
        optimizer = torch.optim.SGD(own.parameters(), lr=.05, momentum=.9)
        for iteration in range(5):
            chosen = order[iteration % 3]
            data = own.data_preprocessor(dict(inputs=dataset.images[chosen], data_samples=dataset.labels[chosen]))
            losses = own(**data, mode='loss')
            (losses['loss_cls'] + losses['loss_norm']).backward()
            optimizer.step()
            optimizer.zero_grad()
        expected = expected_metrics(own, space[line['number']], True)
        assert line['metrics'] == pytest.approx(expected, rel=1e-4)
        assert line['metrics'] != pytest.approx(expected_metrics(model, space[line['number']], True), rel=1e-3)


@pytest.mark.parametrize('wrapper', [dict(type='NoWrapper', optimizer=dict(type='SGD', lr=.1)),
                                     dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=.1, what=3)),
                                     dict(type='OptimWrapper', optimizer=dict(type='SGD', lr='a'))])
def test_optimizers_that_cannot_be_built(tmp_path, wrapper):
    with pytest.raises(ConfigError, match='sample_with_finetune.*optim_wrapper'):
        runner_for(tmp_path, cfg={**TRAINING, 'optim_wrapper': wrapper}, sample_with_finetune=True).test()


# -- in a training ----------------------------------------------------------------------------------------------------


def trained(rank, folder, parallel):
    """A training that samples accuracies now and then, and its weights."""
    model = trained_model(seed=0)
    for module in model.modules():  # as of ranks that saw other images
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean += rank
    runner = build_runner(
        folder, model, hooks=[calibration()], train_cfg=dict(max_epochs=2, val_interval=1),
        val_cfg=None if parallel is None else dict(type='mmbignas.SampleAccuracyLoop', image_size=SIZE, subnet_count=3,
                                                   calib_bn=False, parallel=parallel))
    runner.train()
    return runner.model.state_dict()


def trained_each_way(rank, folder):
    return [trained(rank, f'{folder}/{parallel}', parallel) for parallel in (None, 'images', 'subnet')]


def test_a_training_goes_on_as_without_it(tmp_path):
    """In two processes whose statistics differ; all figures are of the first one's."""
    for plain, *others in run_processes(trained_each_way, str(tmp_path)):
        for state in others:
            for name, value in plain.items():
                assert torch.equal(value, state[name]), name
    found = [{(path.parent.name, line['number']): line['metrics'] for path in sorted(tmp_path.glob(
        f'{parallel}/sample_accuracy/*/ledger.jsonl')) for line in map(json.loads, path.read_text().splitlines()[1:])}
        for parallel in ('images', 'subnet')]
    assert len(found[0]) == 6 and found[0].keys() == found[1].keys()
    for place, metrics in found[0].items():
        assert metrics == pytest.approx(found[1][place], rel=1e-5)


# -- several processes ------------------------------------------------------------------------------------------------


def sampled(rank, folder):
    """What two processes find out, each way; and what a process sees while it is alone."""
    from mmengine.dist import collect_results, get_dist_info

    alone = Alone()
    with alone():
        inside = get_dist_info(), collect_results([rank], 1)
    outside = get_dist_info()
    metrics = {}
    for parallel in ('images', 'subnet'):
        for tuned in (False, dict(max_iters=2)):
            own = runner_for(f'{folder}/{parallel}{bool(tuned)}', parallel=parallel, subnet_count=9,
                             sample_with_finetune=tuned, cfg=TRAINING)
            metrics[parallel, bool(tuned)] = own.test()
    return inside, outside, metrics


def test_two_processes_find_what_one_finds(tmp_path):
    results = run_processes(sampled, str(tmp_path))
    assert [own[0] for own in results] == [((0, 1), [0]), ((0, 1), [1])]
    assert [own[1] for own in results] == [(0, 2), (1, 2)]
    assert results[0][2] == results[1][2]
    for tuned in (False, True):
        runner_for(tmp_path / f'single{tuned}', subnet_count=9, cfg=TRAINING,
                   sample_with_finetune=dict(max_iters=2) if tuned else False).test()
        expected = {line['number']: line for line in lines_of(tmp_path / f'single{tuned}')}
        for parallel in ('images', 'subnet'):
            lines = {line['number']: line for line in lines_of(tmp_path / f'{parallel}{tuned}')}
            assert lines.keys() == expected.keys() and len(lines) == 9
            for number, line in lines.items():
                assert line['metrics'] == pytest.approx(expected[number]['metrics'], rel=1e-5)
                assert line['macs'] == expected[number]['macs']
