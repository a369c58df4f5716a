"""The shipped configs, and what a mistake in a config leads to."""
import runpy
import sys
from pathlib import Path

import pytest
import torch
from mmdet.utils import register_all_modules
from mmengine.config import Config, DictAction
from mmengine.registry import HOOKS, LOOPS, MODELS, PARAM_SCHEDULERS
from mmengine.runner import Runner
from torch import nn

from mmbignas.ops import DynamicLayer
from mmbignas.supernet import Supernet, parse_choices, subnet_config, subnet_state_dict
from mmbignas.supernet.build import build_model
from tests.runs import ROOT, python

CONFIGS = sorted((ROOT / 'configs').glob('*.py'))
SUPERNETS = [path for path in CONFIGS if 'supnet' in path.stem]


def load(name):
    register_all_modules(init_default_scope=True)
    return Config.fromfile(ROOT / 'configs' / name)


def meta_model(cfg):
    """The model of a config without weights: its modules, and the shapes of what they hold."""
    with torch.device('meta'):
        return build_model(cfg)


def check_plain_networks(cfg, model):
    """The largest and the smallest subnet are plain networks whose state is found, name by name, in the supernet's."""
    space, sizes = Supernet(model).space, []
    for subnet in (space.max(), space.min()):
        plain = build_model(Config(dict(cfg, model=subnet_config(cfg.model, model, subnet))))
        assert not any(isinstance(module, DynamicLayer) for module in plain.modules())
        plain.load_state_dict(subnet_state_dict(model, plain), strict=True)
        sizes.append(sum(parameter.numel() for parameter in plain.parameters()))
    # The largest subnet has all but the steps to smaller kernels.
    assert sizes[0] == sum(parameter.numel() for name, parameter in model.named_parameters()
                           if '.transforms.' not in name)
    assert sizes[1] < sizes[0] / 2


@pytest.fixture(scope='module')
def checked():
    """The supernets whose plain networks were checked: the steps of a recipe have the same one."""
    return set()


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_builds_as_supernet_and_as_plain_networks(path, checked):
    """Without weights."""
    cfg = load(path.name)
    hooks = cfg.get('custom_hooks') or []
    for registry, configs in ((LOOPS, [cfg.train_cfg, cfg.val_cfg, cfg.test_cfg]), (HOOKS, hooks)):
        for own in configs:
            assert registry.get(own.type) is not None, own.type
    model, text = meta_model(cfg), str(cfg.model.to_dict())
    if 'space' in text and text not in checked:
        with torch.device('meta'):
            check_plain_networks(cfg, model)
        checked.add(text)


@pytest.mark.parametrize('path', SUPERNETS, ids=lambda path: path.stem)
def test_weights_of_the_supernet_and_of_plain_networks(path):
    cfg = load(path.name)
    check_plain_networks(cfg, build_model(cfg))


def choices(space, module, element):
    return [space.modules[module].choices(element, stage) for stage in range(space.modules[module].num_stages)]


def test_the_reference_recipe_space():
    model = meta_model(load('retinanet_r18_supnet.py'))
    space = Supernet(model).space
    assert list(space.modules) == ['backbone', 'neck', 'bbox_head.cls_tower']
    assert choices(space, 'backbone', 'out_channel') == [
        (32, 48, 64), (48, 64, 80), (96, 128, 160), (192, 256, 320), (384, 512, 640)]
    assert choices(space, 'backbone', 'depth') == [(1, ), (1, 2, 3), (2, 3, 4), (2, 3, 4), (4, 5, 6)]
    assert choices(space, 'backbone', 'kernel_size') == [(3, )] * 5
    assert choices(space, 'backbone', 'expand_ratio') == [(.5, ), (1, ), (1, ), (1, ), (1, )]
    strategies = {name: element.strategy.name for name, element in space.modules['backbone'].elements.items()
                  if element.strategy}
    assert strategies == dict(out_channel='stage_wise', depth='stage_wise_depth')
    assert choices(space, 'neck', 'out_channel') == [(128, ), (128, )]
    assert choices(space, 'neck', 'kernel_size') == [(1, ), (3, )]
    assert space.modules['neck'].elements['out_channel'].strategy.name == 'net_wise'
    assert choices(space, 'bbox_head.cls_tower', 'depth') == [(4, )]
    assert choices(space, 'bbox_head.cls_tower', 'out_channel') == [(64, 96, 128)]
    assert choices(space, 'bbox_head.cls_tower', 'kernel_size') == [(3, )]
    assert len([module for module in model.backbone.stem if isinstance(module, nn.Conv2d)]) == 3
    features = model.eval().backbone(torch.zeros(1, 3, 64, 128, device='meta'))
    assert [tuple(own.shape[1:]) for own in features] == [(160, 8, 16), (320, 4, 8), (640, 2, 4)]
    assert len(model.neck(features)) == 5


def test_the_reference_recipe_head():
    cfg = load('retinanet_r18_supnet.py')
    head, test_cfg = MODELS.build(cfg.model).bbox_head, cfg.model.test_cfg
    assert (head.num_classes, head.num_base_priors) == (80, 2)
    anchors = head.prior_generator.base_anchors
    assert [[(box[2:] - box[:2]).tolist() for box in level] for level in anchors] == [
        [[6. * stride] * 2, [8. * stride] * 2] for stride in (8, 16, 32, 64, 128)]
    assert (type(head.loss_cls).__name__, head.loss_cls.beta, head.loss_cls.loss_weight) == ('QualityFocalLoss', 2, 1)
    assert (type(head.loss_bbox).__name__, head.loss_bbox.loss_weight) == ('GIoULoss', 1)
    assert (cfg.model.train_cfg.assigner.type, cfg.model.train_cfg.assigner.topk) == ('ATSSAssigner', 18)
    assert (test_cfg.score_thr, test_cfg.nms_pre, test_cfg.nms, test_cfg.max_per_img) == (
        .05, 1000, dict(type='nms', iou_threshold=.5), 100)
    assert len(head.reg_tower) == len(head.cls_tower) == 4


def test_the_reference_recipe_schedule():
    cfg = load('retinanet_r18_supnet.py')
    optimizer = cfg.optim_wrapper.optimizer
    assert cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == 8
    assert optimizer == dict(type='SGD', lr=8 * .000625, momentum=.9, weight_decay=1e-4)
    assert cfg.train_cfg == dict(
        type='mmbignas.SandwichTrainLoop', max_epochs=500, val_interval=10, sample_subnet_num=4,
        sample_strategy=['max', 'min', 'random', 'random'], valid_before_train=False)
    for pipeline in (cfg.train_dataloader.dataset.pipeline, cfg.val_dataloader.dataset.pipeline):
        assert dict(type='Resize', scale=(1333, 800), keep_ratio=True) in pipeline
    hooks = {hook.type: hook for hook in cfg.custom_hooks}
    assert hooks['mmbignas.BNCalibrationHook'].num_images == 2048
    assert hooks['mmbignas.DistillHook'].jobs.p6.mimic_name == 'neck.fpn_convs.3.conv'
    assert cfg.val_cfg.subnets == ['max', 'min']

    epoch_length, rates = 5, []
    sgd = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=optimizer.lr)
    schedulers = [PARAM_SCHEDULERS.build(own, default_args=dict(optimizer=sgd, epoch_length=epoch_length))
                  for own in cfg.param_scheduler]
    for _ in range(500):
        for _ in range(epoch_length):
            rates.append(sgd.param_groups[0]['lr'])
            sgd.step()
            schedulers[0].step()
        schedulers[1].step()
    rates = torch.tensor(rates, dtype=torch.double).view(500, epoch_length)
    assert rates[0, 0] < 1e-5
    assert (rates[0].diff() > 0).all()
    for start, end, rate in ((1, 350, .005), (350, 450, .0005), (450, 500, .00005)):
        torch.testing.assert_close(rates[start:end], torch.full_like(rates[start:end], rate))


def test_focal_variant():
    head = meta_model(load('retinanet_r18_supnet_focal.py')).bbox_head
    assert head.num_base_priors == 9
    assert [type(own).__name__ for own in (head.loss_cls, head.loss_bbox, head.assigner)] == [
        'FocalLoss', 'L1Loss', 'MaxIoUAssigner']
    assert (head.loss_cls.gamma, head.loss_cls.alpha, head.reg_decoded_bbox) == (2, .25, False)
    assert head.retina_cls.out_channels == 9 * 80
    assert head.retina_reg.out_channels == 9 * 4


def test_the_reference_recipe_evaluation():
    """The subnets of the config are in the space, its table has the reference's metric."""
    cfg = load('retinanet_r18_evaluate_subnet.py').test_cfg
    space = Supernet(meta_model(load('retinanet_r18_evaluate_subnet.py'))).space
    by_name = {own.name: own.subnet for own in parse_choices(cfg.subnets, space, 'test_cfg.subnets')}
    assert list(by_name) == ['max', 'min', 'r18_narrow', 'r18_middle']
    assert (by_name['max'], by_name['min'], by_name['r18_narrow']) == (space.max(), space.min(), space.min())
    middle = by_name['r18_middle'].to_dict()
    assert middle['backbone']['out_channel'] == [48, 64, 128, 256, 512]
    assert middle['backbone']['depth'] == [1, 2, 3, 3, 5]
    assert middle['bbox_head.cls_tower'] == dict(depth=[4], out_channel=[128], kernel_size=[3])
    assert (cfg.image_size, cfg.calib_bn, cfg.metric1) == ([768, 1344], 'both', 'coco/bbox_mAP')
    assert cfg.latency == dict(backend='torch', device='cpu', threads=1, batch_size=1)
    options = DictAction._parse_iterable("['max','my.yaml',7]")  # what the config's head says of --cfg-options
    assert options == ['max', 'my.yaml', 7]


def test_the_reference_faster_rcnn():
    """Its space holds the three networks that the reference reports, of growing cost."""
    cfg = load('faster_rcnn_r18_evaluate_subnet.py')
    model = meta_model(cfg)
    space = Supernet(model).space
    assert list(space.modules) == ['backbone', 'neck', 'rpn_head.tower', 'roi_head.bbox_head.fcs']
    assert choices(space, 'roi_head.bbox_head.fcs', 'out_channel') == [(384, 448, 512)]
    assert choices(space, 'rpn_head.tower', 'out_channel') == [(256, )]
    assert choices(space, 'neck', 'out_channel') == [(128, 192, 256)] * 2
    by_name = {own.name: own.subnet for own in parse_choices(cfg.test_cfg.subnets, space, 'test_cfg.subnets')}
    expected = dict(r18_narrow=([32, 48, 96, 192, 384], [1, 1, 2, 2, 2], 384),
                    r18_middle=([48, 64, 128, 256, 512], [1, 2, 3, 3, 3], 448),
                    max=([64, 80, 160, 320, 640], [1, 3, 4, 4, 4], 512))
    for name, (widths, depth, hidden) in expected.items():
        own = by_name[name].to_dict()
        assert (own['backbone']['out_channel'], own['backbone']['depth']) == (widths, depth)
        assert own['neck']['out_channel'] == [256, 256]
        assert own['roi_head.bbox_head.fcs'] == dict(depth=[2], out_channel=[hidden])
    features = model.eval().extract_feat(torch.zeros(1, 3, 128, 256, device='meta'))
    assert [tuple(own.shape[1:]) for own in features] == [(256, 32 >> level, 64 >> level) for level in range(5)]
    assert model.roi_head.bbox_head.fcs[0].fc.in_features == 256 * 7 * 7


# What is wrong -> the change to a working config, and what the message must hold: key, value and what is allowed.
BACKBONE = 'model = dict(backbone=dict({}))'
WIDTHS = 'out_channel=dict(space=dict({}))'
TRAIN = 'train_cfg = dict({})'
VAL = 'val_cfg = dict({})'
HOOK = 'custom_hooks = [dict(type="mmbignas.BNCalibrationHook", num_images=8), dict(type="mmbignas.{}")]'
DISTILL = 'DistillHook", jobs=dict(a=dict(mimic_name="{}", loss=dict(type="mmbignas.FeatureMSELoss"))), priority="LOW'
MISTAKES = {
    'unknown strategy': (
        BACKBONE.format('depth=dict(sample_strategy="stagewise")'),
        ['BigResNet.depth.sample_strategy', "'stagewise'", 'stage_wise_depth']),
    'unknown strategy keyword': (
        BACKBONE.format('out_channel=dict(sample_strategy=dict(_delete_=True, name="ordered_stage_wise", '
                        'kwargs=dict(slope=2)))'),
        ['BigResNet.out_channel.sample_strategy.kwargs', 'slope', 'min_slope, max_slope, start_stage, end_stage']),
    'unknown element': (
        'model = dict(bbox_head=dict(cls_tower=dict(width=[8])))',
        ['BigRetinaHead.cls_tower', 'width', 'depth, out_channel, kernel_size']),
    'unknown key of a space': (
        BACKBONE.format(WIDTHS.format('step=8')), ['BigResNet.out_channel.space', 'step', 'stride=...']),
    'min over max': (
        BACKBONE.format(WIDTHS.format('min=[8, 8, 16, 96, 64]')),
        ['BigResNet.out_channel.space.min must be <= max, 64, in stage 3, got 96']),
    'stride misses max': (
        BACKBONE.format(WIDTHS.format('stride=[8, 8, 12, 16, 32]')),
        ['BigResNet.out_channel.space.stride must be a divisor of 16 in stage 2, from 16 to 32, got 12']),
    'no stride': (
        BACKBONE.format(WIDTHS.format('stride=0')),
        ['BigResNet.out_channel.space.stride must be a number > 0', 'got 0']),
    'too few minima': (
        BACKBONE.format(WIDTHS.format('min=[8, 8, 16, 32]')),
        ['BigResNet.out_channel.space.min', 'one value per stage (5)', 'got [8, 8, 16, 32]']),
    'too few values': (
        BACKBONE.format('kernel_size=[3, 3, 3]'),
        ['BigResNet.kernel_size must be a list of one value per stage (5)', 'got (3, 3, 3)']),
    'an even kernel': (
        BACKBONE.format('kernel_size=[3, 3, 4, 3, 3]'),
        ['BigResNet.kernel_size[2] must be an odd integer >= 1, got 4']),
    'an order that cannot be kept': (
        BACKBONE.format('out_channel=dict(space=dict(max=[16, 16, 32, 64, 64], min=[8, 8, 16, 32, 64]), '
                        'sample_strategy=dict(_delete_=True, name="ordered_stage_wise", '
                        'kwargs=dict(min_slope=2, start_stage=2)))'),
        ['BigResNet.out_channel', 'ordered_stage_wise', 'stage 4', '2 to 1000 times', 'got 64']),
    'depth of the stem': (
        BACKBONE.format('depth=dict(space=dict(max=[2, 2, 2, 2, 2]))'),
        ['BigResNet.depth must be 1 in stage 0', 'got [1, 2]']),
    'settings outside the space': (
        TRAIN.format('sample_strategy=["max", "min", "random", dict(backbone=dict(depth=[1, 1, 1, 1, 7], '
                     'out_channel=[8, 8, 16, 32, 64]))]'),
        ['train_cfg.sample_strategy[3]: backbone.depth must be one of [1, 2] in stage 4, got 7']),
    'settings of an unknown element': (
        VAL.format('subnets=["max", dict(backbone=dict(width=[1]))]'),
        ['val_cfg.subnets[1]', 'backbone', 'width', 'depth, out_channel, kernel_size, expand_ratio']),
    'a strategy too few': (
        TRAIN.format('sample_subnet_num=3'), ['train_cfg.sample_subnet_num must be 4', 'or 1', 'got 3']),
    'an unknown subnet': (
        TRAIN.format('sample_strategy=["max", "small", "min", "random"]'),
        ['train_cfg.sample_strategy[1]', "'small'", 'max, min, middle, random']),
    'no subnets': (VAL.format('subnets=[]'), ['val_cfg.subnets', '[]', 'max, min, middle, random']),
    'an unknown way to calibrate': (VAL.format('calib_bn="yes"'), ['val_cfg.calib_bn', "'yes'", 'True, False, both']),
    'an unknown teacher module': (
        HOOK.format(DISTILL.format('neck.p6_conv.conv')),
        ['DistillHook.jobs', "'neck.p6_conv.conv'", 'neck has: lateral_convs, fpn_convs']),
    'distillation without a teacher': (
        HOOK.format(DISTILL.format('neck.fpn_convs.3.conv')) + '\n' + TRAIN.format(
            'sample_subnet_num=1, sample_strategy=["max", "min"]'),
        ['train_cfg.sample_strategy must be a list of several with max first', "got ['max']"]),
    'calibration without its hook': (
        'custom_hooks = []', ['val_cfg.calib_bn', 'True', 'BNCalibrationHook', 'must be False']),
    'calibration without images': (
        'custom_hooks = [dict(type="mmbignas.BNCalibrationHook", num_images=0)]',
        ['BNCalibrationHook.num_images must be an integer >= 1, got 0']),
    'calibration without data': (
        'custom_hooks = [dict(type="mmbignas.BNCalibrationHook", dataloader=dict(batch_size=2))]',
        ['BNCalibrationHook.dataloader', "{'batch_size': 2}", 'a dict with dataset']),
    'calibration with missing data': (
        'custom_hooks = [dict(type="mmbignas.BNCalibrationHook", dataloader=dict(batch_size=2, dataset=dict('
        'type="CocoDataset", ann_file="calibration.json")))]',
        ['BNCalibrationHook.dataloader.dataset.ann_file', 'calibration.json', 'does not exist']),
    'no annotation file to train with': (
        'train_dataloader = dict(dataset=dict(ann_file="train.json"))',
        ['train_dataloader.dataset.ann_file', 'data/train.json', 'does not exist']),
    'no images to train with': (
        'train_dataloader = dict(dataset=dict(data_prefix=dict(img="pictures/")))',
        ['train_dataloader.dataset.data_prefix.img', 'data/pictures/', 'does not exist']),
    'no annotation file to validate with': (
        'val_dataloader = dict(dataset=dict(ann_file="val.json"))',
        ['val_dataloader.dataset.ann_file', 'data/val.json', 'does not exist']),
    'no annotation file for the metric': (
        'val_evaluator = dict(ann_file="val.json")', ['val_evaluator.ann_file', 'val.json', 'does not exist']),
    'no searchable module': (
        'model = dict(_delete_=True, type="RetinaNet", backbone=dict(type="mmdet.ResNet", depth=18), '
        'neck=dict(type="FPN", in_channels=[64, 128, 256, 512], out_channels=8, num_outs=5), '
        'bbox_head=dict(type="RetinaHead", num_classes=3, in_channels=8))',
        ['model', 'RetinaNet has no searchable module', 'mmbignas.BigResNet']),
    'SyncBN by conversion': (
        'sync_bn = "torch"', ['sync_bn must be None', "norm_cfg=dict(type='SyncBN')", "got 'torch'"]),
    'a neck that cannot change its width': (
        'model = dict(neck=dict(_delete_=True, type="FPN", in_channels=[32, 64, 128], out_channels=32, num_outs=5))',
        ['model: neck', 'does not take the smallest subnet', 'dict(space=dict(min=[x], max=[x]))']),
    'a norm that cannot change its width': (
        BACKBONE.format('norm_cfg=dict(type="GN", num_groups=4)'), ['norm_cfg.type', "'GN'", 'BN, BN2d']),
}
IN_A_PROCESS = ['settings outside the space']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with a data set that has all its files, and a config that trains with it."""
    own = tmp_path_factory.mktemp('mistakes')
    argv = sys.argv
    sys.argv = ['make_shapes.py', str(own / 'data'), '--train', '4', '--val', '2', '--size', '64']
    try:
        runpy.run_path(str(ROOT / 'tools' / 'make_shapes.py'), run_name='__main__')
    finally:
        sys.argv = argv
    data = str(own / 'data')
    (own / 'base.py').write_text(
        f'_base_ = {str(ROOT / "configs" / "shapes_supnet.py")!r}\n'
        f'train_dataloader = dict(batch_size=4, dataset=dict(data_root={data!r}))\n'
        f'val_dataloader = dict(dataset=dict(data_root={data!r}))\n'
        f'val_evaluator = dict(ann_file={data + "/annotations/val.json"!r})\n'
        'train_cfg = dict(max_epochs=1, val_begin=9)\n')
    return own


def write(folder, name):
    """The config with one mistake."""
    path = folder / f'{name.replace(" ", "_")}.py'
    # MMEngine's visualizers are known by name, and all these runs may happen in one process.
    visualizer = f'visualizer = dict(name="{path.stem}")'
    path.write_text(f'_base_ = "base.py"\n{visualizer}\n{MISTAKES.get(name, ("", ))[0]}\n')
    return path


def train_here(monkeypatch, folder, path):
    """Run the tool in this process."""
    monkeypatch.setattr(sys, 'argv', ['train.py', str(path), '--work-dir', str(folder / f'run_{path.stem}')])
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.setattr(Runner, '_log_env', lambda self, env_cfg: None)  # a second's work
    runpy.run_path(str(ROOT / 'tools' / 'train.py'), run_name='__main__')


def check(name, stdout, stderr):
    lines = stderr.splitlines()
    errors = [line for line in lines if line.startswith('error: ')]
    assert errors == lines[-1:], stderr[-2000:]
    assert 'Traceback' not in stderr
    assert 'Epoch(train)' not in stdout
    for part in MISTAKES[name][1]:
        assert part in errors[0]


@pytest.mark.parametrize('name', [name for name in MISTAKES if name not in IN_A_PROCESS])
def test_a_mistake_is_told_in_one_line(monkeypatch, capsys, folder, name):
    with pytest.raises(SystemExit) as stop:
        train_here(monkeypatch, folder, write(folder, name))
    assert stop.value.code == 2
    check(name, *capsys.readouterr())


@pytest.mark.parametrize('name', IN_A_PROCESS)
def test_a_mistake_is_told_in_one_line_by_a_process(folder, name):
    path = write(folder, name)
    check(name, *python('tools/train.py', path, '--work-dir', folder / f'run_{path.stem}', code=2, split=True))


def test_without_a_mistake_it_trains(monkeypatch, capsys, folder):
    train_here(monkeypatch, folder, write(folder, 'none'))
    output = capsys.readouterr()
    assert not [line for line in output.err.splitlines() if line.startswith('error')]
    assert (folder / 'run_none' / 'last_checkpoint').exists()


@pytest.mark.parametrize(('name', 'supernet'), [
    ('retinanet_r18_subnet.py', 'retinanet_r18_supnet.py'),
    ('retinanet_r18_subnet_bccd.py', 'retinanet_r18_supnet_bccd.py'),
    ('retinanet_r18_finetune_subnet.py', 'retinanet_r18_supnet.py'),
    ('retinanet_r18_finetune_subnet_bccd.py', 'retinanet_r18_supnet_bccd.py'),
    ('faster_rcnn_r18_subnet.py', 'faster_rcnn_r18_supnet.py'),
    ('faster_rcnn_r18_subnet_bccd.py', 'faster_rcnn_r18_supnet_bccd.py'),
])
def test_the_smallest_subnet_as_a_plain_network(name, supernet):
    cfg, supernet_cfg = load(name), load(supernet)
    model, plain = meta_model(supernet_cfg), meta_model(cfg)
    with torch.device('meta'):
        expected = MODELS.build(subnet_config(supernet_cfg.model, model, Supernet(model).space.min()))
    assert not any(isinstance(module, DynamicLayer) for module in plain.modules())
    plain.load_state_dict(expected.state_dict(), strict=True)
    assert str(plain.backbone) == str(expected.backbone)
    assert (cfg.train_cfg.type, cfg.val_cfg, cfg.test_cfg) == (
        'EpochBasedTrainLoop', dict(type='ValLoop'), dict(type='TestLoop'))
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader', 'val_evaluator'):
        assert cfg[key] == supernet_cfg[key]
    assert cfg.default_hooks.checkpoint.save_best == 'coco/bbox_mAP'
    assert cfg.model.init_cfg == dict(
        type='mmbignas.SupernetCheckpoint',
        checkpoint=f'work_dirs/{Path(supernet).stem}/epoch_{supernet_cfg.train_cfg.max_epochs}.pth')


@pytest.mark.parametrize(('name', 'supernet', 'num_images'), [
    ('retinanet_r18_finetune_subnet.py', 'retinanet_r18_supnet.py', 2048),
    ('retinanet_r18_finetune_subnet_bccd.py', 'retinanet_r18_supnet_bccd.py', 292),
    ('faster_rcnn_r18_finetune_subnet.py', 'faster_rcnn_r18_supnet.py', 2048),
    ('regnet_trashnet_finetune_subnet.py', 'regnet_trashnet_supnet.py', 1024),
])
def test_finetuning(monkeypatch, name, supernet, num_images):
    monkeypatch.setenv('SUPERNET_CHECKPOINT', 'supernet.pth')
    cfg, supernet_cfg = load(name), load(supernet)
    assert cfg.model.init_cfg.checkpoint == 'supernet.pth'
    ours, theirs = dict(cfg.optim_wrapper.optimizer), dict(supernet_cfg.optim_wrapper.optimizer)
    assert 10 * ours.pop('lr') == pytest.approx(theirs.pop('lr'))
    assert ours == theirs
    assert cfg.custom_hooks == [dict(type='mmbignas.CalibrateFirstHook', num_images=num_images),
                                dict(type='mmbignas.ValidateFirstHook')]
    assert cfg.train_cfg.val_interval == 1
    [schedule] = cfg.param_scheduler
    assert (schedule.begin, schedule.end) == (0, cfg.train_cfg.max_epochs)
    assert cfg.get('auto_scale_lr') == supernet_cfg.get('auto_scale_lr')
