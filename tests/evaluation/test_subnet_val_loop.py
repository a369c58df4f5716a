"""Evaluation of several subnets in one validation or test."""
import copy
import json
import random

import numpy as np
import pytest
import torch
from mmdet.engine.hooks import DetVisualizationHook
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.visualization import Visualizer

from mmbignas.errors import ConfigError
from mmbignas.evaluation import BNCalibrationHook
from mmbignas.supernet import Supernet, subnet_config, subnet_state_dict
from mmbignas.supernet.calibration import calibrate_bn
from tests.toy import (
    TellingMetric,
    ToyMetric,
    ToyModel,
    build_runner,
    calibration,
    expected_metrics,
    train_batches,
)

SUBNETS = ['max', 'min', 'random', 'middle', 'random', dict(name='mine', subnet_settings=dict(
    backbone=dict(depth=[2], out_channel=[6], kernel_size=[1, 3])))]
NAMES = ['max', 'min', 'random0', 'middle', 'random1', 'mine']


def trained_model(seed=0):
    """A toy whose running statistics are not those of a fresh one."""
    model = ToyModel(seed=seed).train()
    for batch in train_batches():
        model(**model.data_preprocessor(batch, True), mode='loss')
    return model


def runner_for(tmp_path, stage, model=None, hooks=None, **kwargs):
    """A runner with a validation or a test loop of the given settings."""
    metric = kwargs.pop('metric', None)
    return build_runner(tmp_path, model or trained_model(), hooks=[calibration()] if hooks is None else hooks,
                        metric=metric, **{f'{stage}_cfg': {'subnets': SUBNETS, 'calib_bn': True, **kwargs}})


def run(runner, stage):
    return runner.val() if stage == 'val' else runner.test()


def loop_of(runner, stage):
    return runner.val_loop if stage == 'val' else runner.test_loop


@pytest.mark.parametrize('stage', ['val', 'test'])
@pytest.mark.parametrize('calib_bn', [True, False, 'both'])
@pytest.mark.parametrize('seed', [0, 1])
def test_metrics_of_each_subnet(tmp_path, stage, calib_bn, seed):
    model = trained_model(seed)
    runner = runner_for(tmp_path, stage, model, calib_bn=calib_bn)
    metrics = run(runner, stage)
    evals = loop_of(runner, stage).evals
    modes = [False, True] if calib_bn == 'both' else [calib_bn]
    assert [own.name for own in evals] == [name + '_calib' * mode for name in NAMES for mode in modes]
    assert list(metrics) == [f'{own.name}/toy/{name}' for own in evals for name in ('accuracy', 'likelihood')]
    space = Supernet(model).space
    by_name = {own.name: own.subnet for own in evals}
    first = {name: by_name[name + '_calib' * modes[0]] for name in NAMES}
    assert (first['max'], first['min'], first['middle']) == (space.max(), space.min(), space.middle())
    assert first['mine'].to_dict() == SUBNETS[-1]['subnet_settings']
    for own in evals:
        assert own.subnet == first[own.name.removesuffix('_calib')]
        assert own.calib_bn == own.name.endswith('_calib')
        for name, value in expected_metrics(model, own.subnet, own.calib_bn).items():
            assert metrics[f'{own.name}/{name}'] == pytest.approx(value, rel=1e-5)
    different = {(own.subnet, own.calib_bn) for own in evals}
    assert len({round(value, 7) for name, value in metrics.items() if 'likelihood' in name}) == len(different)
    assert all(runner.message_hub.get_scalar(f'{stage}/{name}').current() == value for name, value in metrics.items())


def test_random_subnets_are_the_same_each_time(tmp_path):
    chosen = []
    for index in range(3):
        runner = runner_for(tmp_path, 'val', ToyModel(seed=index), calib_bn=False)
        random.seed(index)
        chosen.append([own.subnet for own in runner.val_loop.evals])
    assert chosen[0] == chosen[1] == chosen[2]
    assert len(set(chosen[0])) > 4


class BrokenMetric(ToyMetric):
    """Fails in the second evaluation."""

    def compute_metrics(self, results):
        self.count = getattr(self, 'count', 0) + 1
        if self.count == 2:
            raise ArithmeticError('broken')
        return super().compute_metrics(results)


@pytest.mark.parametrize('stage', ['val', 'test'])
@pytest.mark.parametrize('broken', [False, True])
def test_the_model_is_as_before(tmp_path, stage, broken):
    model = trained_model()
    supernet = Supernet(model)
    subnet = supernet.apply(supernet.space.sample(random.Random(9)))
    active = [(own[0].active_out_channels, own[0].active_kernel_size, own.is_active) for own in model.backbone.blocks]
    before = copy.deepcopy(model.state_dict())
    runner = runner_for(tmp_path, stage, model, calib_bn='both', metric=BrokenMetric() if broken else None)
    if broken:
        with pytest.raises(ArithmeticError):
            run(runner, stage)
    else:
        run(runner, stage)
    assert supernet.current == subnet
    assert active == [(own[0].active_out_channels, own[0].active_kernel_size, own.is_active)
                      for own in model.backbone.blocks]
    assert model.state_dict().keys() == before.keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


class EventHook(Hook):
    def __init__(self):
        self.events = []

    def record(name):
        def method(self, runner, **kwargs):
            values = [kwargs['subnet_eval'].name] if 'subnet_eval' in kwargs else []
            values += [kwargs['batch_idx'], len(kwargs['data_batch']['inputs'])] if 'batch_idx' in kwargs else []
            if 'outputs' in kwargs:
                assert len(kwargs['outputs']) == len(kwargs['data_batch']['inputs'])
            values += [list(kwargs['metrics'])] if 'metrics' in kwargs else []
            if 'subnet_eval' in kwargs:
                assert Supernet(runner.model).current == kwargs['subnet_eval'].subnet
            assert name in ('before_val', 'before_test', 'before_val_epoch', 'before_test_epoch') or \
                not runner.model.training
            self.events.append((name, *values))
        return method

    before_subnet_eval, after_subnet_eval = record('before_subnet_eval'), record('after_subnet_eval')
    before_val, before_val_epoch, before_val_iter = (
        record('before_val'), record('before_val_epoch'), record('before_val_iter'))
    after_val, after_val_epoch, after_val_iter = (
        record('after_val'), record('after_val_epoch'), record('after_val_iter'))
    before_test, before_test_epoch, before_test_iter = (
        record('before_test'), record('before_test_epoch'), record('before_test_iter'))
    after_test, after_test_epoch, after_test_iter = (
        record('after_test'), record('after_test_epoch'), record('after_test_iter'))


@pytest.mark.parametrize('stage', ['val', 'test'])
def test_hook_points(tmp_path, stage):
    hook = EventHook()
    run(runner_for(tmp_path, stage, hooks=[hook], calib_bn=False, subnets=['min', 'max']), stage)
    expected = [(f'before_{stage}', ), (f'before_{stage}_epoch', )]
    for name in ('min', 'max'):
        expected.append(('before_subnet_eval', name))
        for index, size in enumerate((4, 4, 2)):
            expected += [(f'before_{stage}_iter', index, size), (f'after_{stage}_iter', index, size)]
        expected.append(('after_subnet_eval', name))
    metrics = [f'{subnet}/toy/{name}' for subnet in ('min', 'max') for name in ('accuracy', 'likelihood')]
    assert hook.events == [*expected, (f'after_{stage}_epoch', metrics), (f'after_{stage}', )]


class DrawingHook(DetVisualizationHook):
    """Says where it would draw."""

    def __init__(self, folder):
        super().__init__(draw=True, test_out_dir=folder)
        self.folders = []

    def after_val_iter(self, runner, batch_idx, data_batch, outputs):
        self.folders.append(self.test_out_dir)

    after_test_iter = after_val_iter


@pytest.mark.parametrize('stage', ['val', 'test'])
def test_each_subnet_is_drawn_into_a_folder_of_its_own(tmp_path, stage):
    """Names of pictures are those of the images, and so the same."""
    Visualizer.get_instance('drawing')
    hooks = [DrawingHook('pictures'), DrawingHook(None)]
    runner = runner_for(tmp_path, stage, hooks=[calibration(), *hooks], subnets=['max', 'min'], calib_bn='both')
    run(runner, stage)
    assert list(dict.fromkeys(hooks[0].folders)) == [
        f'pictures/{name}' for name in ('max', 'max_calib', 'min', 'min_calib')]
    assert hooks[0].test_out_dir == 'pictures' and set(hooks[1].folders) == {None}


def lines_of(runner, stage):
    with open(f'{runner.log_dir}/subnets_{stage}.jsonl') as file:
        return [json.loads(line) for line in file]


@pytest.mark.parametrize('stage', ['val', 'test'])
def test_record(tmp_path, stage):
    runner = runner_for(tmp_path, stage, calib_bn='both')
    metrics = run(runner, stage)
    lines = lines_of(runner, stage)
    assert [line['name'] for line in lines] == [own.name for own in loop_of(runner, stage).evals]
    for line, own in zip(lines, loop_of(runner, stage).evals):
        assert set(line) == {'name', 'iter', 'calib_bn', 'subnet_settings', 'metrics'}
        assert (line['iter'], line['calib_bn']) == (None, own.calib_bn)
        assert line['subnet_settings'] == own.subnet.to_dict()
        assert {f'{own.name}/{name}': value for name, value in line['metrics'].items()} == {
            name: value for name, value in metrics.items() if name.startswith(f'{own.name}/')}


def test_record_during_training(tmp_path):
    """All validations of a run go to one file; each subnet is there as soon as it is finished."""
    seen = []

    class Reader(Hook):
        def before_subnet_eval(self, runner, subnet_eval):
            if seen:
                seen.append((runner.iter, len(lines_of(runner, 'val'))))
            else:
                seen.append((runner.iter, 0))

    runner = build_runner(tmp_path, hooks=[Reader()], val_cfg=dict(subnets=['max', 'min']),
                          train_cfg=dict(max_epochs=2, val_interval=1, valid_before_train=True))
    runner.train()
    assert seen == [(0, 0), (0, 1), (4, 2), (4, 3), (8, 4), (8, 5)]
    assert [(line['name'], line['iter']) for line in lines_of(runner, 'val')] == [
        (name, iteration) for iteration in (0, 4, 8) for name in ('max', 'min')]


def test_missing_metrics_are_zero(tmp_path):
    turns = [{}, dict(map=.25, ar=.5), dict(map=.125)]
    runner = runner_for(tmp_path, 'val', metric=TellingMetric(turns), subnets=['max', 'min', 'middle'], calib_bn=False)
    assert runner.val() == {'max/coco/map': 0., 'max/coco/ar': 0., 'min/coco/map': .25, 'min/coco/ar': .5,
                            'middle/coco/map': .125, 'middle/coco/ar': 0.}
    assert [line['metrics'] for line in lines_of(runner, 'val')] == [
        {}, {'coco/map': .25, 'coco/ar': .5}, {'coco/map': .125}]


def test_no_metrics_at_all(tmp_path):
    """``save_best`` then finds nothing to save, and training goes on."""
    runner = build_runner(tmp_path, metric=TellingMetric([{}] * 4), val_cfg={}, train_cfg=dict(max_epochs=2),
                          default_hooks=dict(checkpoint=dict(type='CheckpointHook', save_best='min/coco/map',
                                                             rule='greater')))
    runner.train()
    assert runner.iter == 8
    assert not list(tmp_path.glob('best*'))


def test_metrics_that_are_no_numbers(tmp_path):
    """MMEngine lets metrics be tensors, arrays, text, ...: they are handed on, and written as well as JSON can."""
    turn = dict(map=torch.tensor(.25), classes=torch.tensor([.5, .25]), note='0.1 0.2', matrix=[[1, 2], [3, 4]])
    runner = runner_for(tmp_path, 'val', metric=TellingMetric([turn, turn]), subnets=['max', 'min'], calib_bn=False)
    metrics = runner.val()
    assert metrics['min/coco/map'] == .25
    assert metrics['min/coco/classes'].tolist() == [.5, .25]
    assert metrics['min/coco/note'] == '0.1 0.2'
    for line in lines_of(runner, 'val'):
        assert line['metrics'] == {'coco/map': .25, 'coco/classes': [.5, .25], 'coco/note': '0.1 0.2',
                                   'coco/matrix': [[1, 2], [3, 4]]}


def test_half_precision(tmp_path):
    seen, model = [], trained_model()
    runner = runner_for(tmp_path, 'val', model, calib_bn=False, fp16=True)
    assert runner.val_loop.evals
    model.head.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    runner.val()
    assert len(seen) == len(SUBNETS) * 3 + 1  # one of a trial before
    assert set(seen) == {torch.bfloat16}


@pytest.mark.parametrize('stage', ['val', 'test'])
@pytest.mark.parametrize(('cfg', 'parts'), [
    (dict(calib_bn='yes'), ["calib_bn must be one of True, False, both, got 'yes'"]),
    (dict(fp16='yes'), ["fp16 must be True or False, got 'yes'"]),
    (dict(subnets=[]), ['subnets', '[]']),
    (dict(subnets=['max', 'tiny']), ['subnets[1]', "'tiny'", 'max, min, middle, random']),
    (dict(subnets=[dict(backbone=dict(depth=[4], out_channel=[6], kernel_size=[3]))]),
     ['subnets[0]', 'backbone.depth', '4', '[1, 2, 3]']),
    (dict(subnets=['max', dict(name='a', subnet_settings=dict(backbone=dict(depth=[1], out_channel=[6])))]),
     ['subnets[1]', 'backbone.kernel_size is missing']),
    (dict(subnets=[dict(neck=dict(depth=[1]))]), ['subnets[0]', 'neck', 'backbone']),
])
def test_errors(tmp_path, stage, cfg, parts):
    runner = runner_for(tmp_path, stage, **cfg)
    with pytest.raises(ConfigError) as error:
        run(runner, stage)
    assert str(error.value).startswith(f'{stage}_cfg.')
    assert '\n' not in str(error.value)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize('stage', ['val', 'test'])
@pytest.mark.parametrize('calib_bn', [True, 'both'])
def test_calibration_without_its_hook(tmp_path, stage, calib_bn):
    runner = runner_for(tmp_path, stage, hooks=[], calib_bn=calib_bn)
    with pytest.raises(ConfigError, match=rf'^{stage}_cfg\.calib_bn must be False without .*BNCalibrationHook'):
        run(runner, stage)


@pytest.mark.parametrize('stage', ['val', 'test'])
@pytest.mark.parametrize('missing', ['dataset', 'evaluator'])
def test_missing_files(tmp_path, stage, missing):
    runner = runner_for(tmp_path, stage)
    if missing == 'dataset':
        getattr(runner, f'_{stage}_dataloader')['dataset'] = dict(type='X', ann_file='nowhere.json')
        key = f'{stage}_dataloader.dataset.ann_file'
    else:
        setattr(runner, f'_{stage}_evaluator', dict(type='CocoMetric', ann_file='nowhere.json'))
        key = f'{stage}_evaluator.ann_file'
    with pytest.raises(ConfigError, match=f'^{key}: nowhere.json does not exist'):
        run(runner, stage)


class Detections(BaseMetric):
    """What a detector's predictions add up to; unlike average precision it tells any two networks apart."""

    default_prefix = 'sum'

    def process(self, data_batch, data_samples):
        for sample in data_samples:
            found = sample['pred_instances']
            self.results.append(torch.cat([found['scores'].double().sum()[None], found['bboxes'].double().mean(0),
                                           found['labels'].double().mean()[None]]))

    def compute_metrics(self, results):
        return {str(index): value for index, value in enumerate(torch.stack(results).mean(0).tolist())}


class DetectionDataset(torch.utils.data.Dataset):
    metainfo = dict(classes=('circle', 'square', 'triangle'))

    def __len__(self):
        return 6

    def __getitem__(self, index):
        image = torch.randint(256, (3, 64, 64), generator=torch.Generator().manual_seed(index), dtype=torch.uint8)
        sample = DetDataSample(metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64), scale_factor=(1., 1.),
                                             img_id=index))
        return dict(inputs=image, data_samples=sample)


def detection_loader(**kwargs):
    return dict(dataset=DetectionDataset(), batch_size=3, num_workers=0,
                sampler=dict(type='DefaultSampler', shuffle=False), **kwargs)


@pytest.mark.parametrize('calibrate', [False, True])
def test_metrics_are_those_of_the_exported_networks(tmp_path, calibrate):
    """A detector's subnets, exported as plain networks, under MMEngine's own ``ValLoop``."""
    cfg = Config.fromfile('configs/shapes_supnet.py').model
    cfg.test_cfg.update(score_thr=0., nms_pre=50)
    model = MODELS.build(cfg)
    model.init_weights()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter) * .05
    hook, common = BNCalibrationHook(6, detection_loader()), dict(val_dataloader=detection_loader(),
                                                                 val_evaluator=[Detections()])
    runner = build_runner(tmp_path, model, hooks=[hook], val_cfg={}, **common)
    runner._val_loop = dict(type='mmbignas.SubnetValLoop', subnets=['max', 'min', 'random'], calib_bn=calibrate)
    metrics = runner.val()
    assert len({metrics[name] for name in metrics if name.endswith('sum/0')}) == 3
    for own in runner.val_loop.evals:
        supernet = copy.deepcopy(model)
        Supernet(supernet).apply(own.subnet)
        if calibrate:
            calibrate_bn(supernet, hook.images.batches())
        plain = MODELS.build(subnet_config(cfg, supernet, own.subnet))
        plain.load_state_dict(subnet_state_dict(supernet, plain))
        plain_runner = build_runner(tmp_path, plain, val_cfg=dict(type='ValLoop'), **common)
        plain_runner._val_loop.pop('calib_bn')
        for name, value in plain_runner.val().items():
            assert metrics[f'{own.name}/{name}'] == pytest.approx(value, rel=1e-5), (own.name, name)


@pytest.mark.parametrize('loop', ['SubnetValLoop', 'EvaluateSubnetLoop'])
def test_tables_show_what_is_no_number_as_such(tmp_path, monkeypatch, loop):
    """One subnet detects nothing: its missing metric is 0, but that of a class without a box is none."""
    metric = TellingMetric([dict(mAP=.5, cell=float('nan')), {}])
    more = dict(latency=None, image_size=[6, 6], metric1='coco/mAP', metric2='coco/cell') if 'Ev' in loop else {}
    runner = build_runner(tmp_path, trained_model(), metric=metric, test_cfg=dict(
        type=f'mmbignas.{loop}', subnets=['max', 'min'], calib_bn=False, **more))
    messages = []
    monkeypatch.setattr(runner.logger, 'info', messages.append)
    metrics = runner.test()
    [table] = [text for text in messages if '| max ' in text]
    rows = [[cell.strip() for cell in line.split('|')[-3:-1]] for line in table.splitlines() if line.startswith('| m')]
    assert rows == [['0.500', '-'], ['0.000', '-']]
    assert metrics['min/coco/mAP'] == 0 and np.isnan(metrics['min/coco/cell'])
