"""A search with real evaluations: what is told is what was measured, in one process and in several."""
import json
import shlex

import optuna
import pytest

from mmbignas.cost import CostModel
from mmbignas.errors import ConfigError
from mmbignas.search import SAMPLERS
from tests.distributed import run_processes
from tests.evaluation.test_sample_accuracy_loop import SIZE, CountingMetric, runner_for
from tests.evaluation.test_subnet_val_loop import trained_model
from tests.toy import TellingMetric, build_runner, calibration, expected_metrics

METRIC = dict(metric1='toy/likelihood')


def search_for(folder, **arguments):
    return runner_for(folder, loop='SubnetSearchLoop', **{**METRIC, **arguments})


def trials_of(folder):
    study = optuna.load_study(study_name='subnets', storage=f'sqlite:///{folder}/search/study.db')
    return study, [trial for trial in study.trials if trial.state.is_finished()]


@pytest.mark.parametrize('sampler', SAMPLERS)
def test_figures_and_constraints(tmp_path, sampler):
    model = trained_model()
    cost_model = CostModel(model, [SIZE])
    space, limit = cost_model.space, 12000
    allowed = [number for number in range(space.size) if cost_model(space[number]).macs <= limit]
    assert 10 < len(allowed) < space.size
    search_for(tmp_path, model=model, sampler=sampler, subnet_count=10, constraints=dict(macs=limit)).test()
    _, trials = trials_of(tmp_path)
    lines = [trial.user_attrs['line'] for trial in trials]
    assert len({line['number'] for line in lines}) == 10 and {line['number'] for line in lines} <= set(allowed)
    for trial, line in zip(trials, lines):
        subnet = space[line['number']]
        assert line['metrics'] == pytest.approx(expected_metrics(model, subnet, True), rel=1e-5)
        assert trial.values == [line['metrics']['toy/likelihood'], cost_model(subnet).macs]
    folder = tmp_path / 'search'
    assert {path.name for path in folder.iterdir()} == {
        'study.db', 'config.py', 'results.json', 'subnets.csv', 'accuracy_macs.png', 'accuracy_params.png',
        'subnets.html'}
    results = json.loads((folder / 'results.json').read_text())
    assert (results['evaluated'], results['flops_range']) == (10, [None, limit])
    best = max(lines, key=lambda line: line['metrics']['toy/likelihood'])
    assert results['best']['number'] == best['number']


def test_an_interrupted_search_goes_on(tmp_path):
    arguments = dict(subnet_count=15, objectives=['toy/likelihood'], seed=3)
    search_for(tmp_path / 'whole', **arguments).test()
    with pytest.raises(ArithmeticError):
        search_for(tmp_path / 'own', metric=CountingMetric(fail=7), **arguments).test()
    metric = CountingMetric()
    search_for(tmp_path / 'own', metric=metric, **arguments).test()
    assert metric.count == 9
    finished = [[trial.user_attrs['line']['number'] for trial in trials_of(tmp_path / name)[1] if trial.values]
                for name in ('whole', 'own')]
    # The subnet that failed was asked for again.
    assert finished[0] == finished[1] and len(set(finished[0])) == 15
    search_for(tmp_path / 'own', metric=metric, **arguments).test()
    assert metric.count == 9


def test_the_whole_space_is_enough(tmp_path):
    metric = CountingMetric()
    predictor = dict(candidates=8, min_subnets=15)
    metrics = search_for(tmp_path, metric=metric, subnet_count=1000, predictor=predictor).test()
    assert metric.count == metrics['search/subnets'] == 42
    prediction = json.loads((tmp_path / 'search' / 'results.json').read_text())['predicted']
    assert (prediction['metric'], prediction['number'], prediction['predicted']) == ('toy/likelihood', 42, 0)
    assert -1 <= prediction['kendall_tau'] <= 1


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(constraints=dict(macs=10)), r'constraints.macs must be a limit .* have [\d,]+ to [\d,]+, got 10'),
    (dict(constraints=dict(latency_ms=3)), 'constraints.latency_ms must be left out, as only macs, params are known'),
    (dict(constraints=dict(flops='20G')), 'constraints must be a dict with keys among macs, params, latency_ms'),
    (dict(sampler='best'), "test_cfg.sampler must be one of nsga2.*, got 'best'"),
    (dict(metric1=None), 'test_cfg.metric1 must be the name of a metric, .*, got None'),
    (dict(subnet_count=0), 'test_cfg.subnet_count must be an integer >= 1, got 0'),
    (dict(study_name=None), 'test_cfg.study_name must be a string, got None'),
    (dict(stale_after='x'), "test_cfg.stale_after must be .*, got 'x'"),
    (dict(storage=5), 'test_cfg.storage must be .*, got 5'), (dict(storage='what://x'), 'test_cfg.storage: what://x'),
    (dict(sampler=dict(type='coarse_to_fine', levels=2.5)), 'test_cfg.sampler.*levels'),
    (dict(objectives=[]), r'test_cfg.objectives.*\[\]'),
    (dict(predictor=dict(candidates=0, min_subnets=3)), 'predictor')])
def test_bad_arguments(tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message):
        search_for(tmp_path, **arguments).test()
    assert not (tmp_path / 'search').exists()


def test_objectives_that_do_not_exist(tmp_path):
    metric = CountingMetric()
    with pytest.raises(ConfigError, match=r"test_cfg.objectives\[1\] must be toy/accuracy or .*, got 'toy/mAP'"):
        search_for(tmp_path, metric=metric, objectives=['macs', 'toy/mAP']).test()
    assert metric.count == 1


def test_another_study_is_refused(tmp_path):
    search_for(tmp_path, subnet_count=1).test()
    with pytest.raises(ConfigError, match='differs in weights;'):
        search_for(tmp_path, model=trained_model(seed=1), subnet_count=2).test()
    with pytest.raises(ConfigError, match='constraints'):
        search_for(tmp_path, constraints=dict(macs=20000), subnet_count=2).test()


def test_no_detections_count_as_nothing(tmp_path):
    metric = TellingMetric([{}, dict(mAP=.5), {}])
    search_for(tmp_path, metric=metric, metric1='coco/mAP', subnet_count=3).test()
    assert [trial.values[0] for trial in trials_of(tmp_path)[1]] == [0., .5, 0.]


def searched(rank, folder):
    """Both ways, in two processes of one run."""
    metrics = {}
    for parallel in ('images', 'subnet'):
        metrics[parallel] = search_for(f'{folder}/{parallel}', parallel=parallel, subnet_count=20).test()
    return metrics


def test_two_processes_on_one_study(tmp_path):
    model = trained_model()
    space = CostModel(model, [SIZE]).space
    results = run_processes(searched, str(tmp_path))
    assert results[0] == results[1]
    for parallel in ('images', 'subnet'):
        _, trials = trials_of(tmp_path / parallel)
        lines = [trial.user_attrs['line'] for trial in trials if trial.values]
        assert 20 <= len(lines) <= 21 and len({line['number'] for line in lines}) == len(lines)
        owners = {trial.user_attrs['owner'] for trial in trials}
        assert len(owners) == (1 if parallel == 'images' else 2)
        for line in lines:
            expected = expected_metrics(model, space[line['number']], True)
            assert line['metrics'] == pytest.approx(expected, rel=1e-5)


def test_predictions_keep_all_limits(tmp_path):
    limit = 700
    search_for(tmp_path, constraints=dict(params=[None, limit]), subnet_count=21).test()
    predicted = json.loads((tmp_path / 'search' / 'results.json').read_text())['predicted']
    model = trained_model()
    cost_model = CostModel(model, [SIZE])
    allowed = {number for number in range(42) if cost_model(cost_model.space[number]).params <= limit}
    assert predicted is None or {own['number'] for own in predicted['best']} <= allowed


def test_waits_for_what_others_evaluate(tmp_path, monkeypatch):
    """The last subnets are another process's; when it is dead, they are this one's."""
    search_for(tmp_path, subnet_count=2).test()
    monkeypatch.setattr('mmbignas.evaluation.subnet_search_loop.WAIT_SECONDS', .1)
    study, trials = trials_of(tmp_path)
    attributes = dict(trials[0].user_attrs, subnet='7', owner='elsewhere:1:1', heartbeat=0.)
    del attributes['line']
    study.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING, user_attrs=attributes,
                                              params=trials[0].params, distributions=trials[0].distributions))
    metric = CountingMetric()
    metrics = search_for(tmp_path, metric=metric, subnet_count=3, stale_after=3.).test()
    assert (metric.count, metrics['search/subnets']) == (1, 3)


@pytest.mark.parametrize('storage', [None, 'shared.db'])
def test_each_validation_has_a_study_of_its_own(tmp_path, storage):
    for seed in range(2):  # the second training comes to other weights in the same folder
        own = build_runner(
            tmp_path, trained_model(seed), hooks=[calibration()], train_cfg=dict(max_epochs=2, val_interval=1),
            val_cfg=dict(type='mmbignas.SubnetSearchLoop', image_size=SIZE, subnet_count=2, calib_bn=True, **METRIC,
                         storage=storage and str(tmp_path / storage)))
        own.train()
    folders = sorted(path.name for path in (tmp_path / 'search').iterdir())
    assert [name.split('_')[:2] for name in folders] == [['iter', '4']] * 2 + [['iter', '8']] * 2
    for name in folders:
        assert json.loads((tmp_path / 'search' / name / 'results.json').read_text())['evaluated'] == 2


def test_the_command_that_shows_the_study_can_be_pasted(tmp_path, monkeypatch):
    """Whatever is in the name of its storage."""
    storage, messages = tmp_path / 'a$(touch X) `b`;c' / 'study.db', []
    runner = search_for(tmp_path, subnet_count=1, storage=str(storage))
    monkeypatch.setattr(runner.logger, 'info', messages.append)
    runner.test()
    [line] = [text for text in messages if 'optuna-dashboard' in text]
    words = shlex.split(line.partition('to look at it: ')[2])
    assert words == ['optuna-dashboard', f'sqlite:///{storage}']
