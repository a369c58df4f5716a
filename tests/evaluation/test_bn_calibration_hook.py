"""The calibration hook: which images, how they are kept, and that evaluation leaves the statistics untouched."""
import copy
import json
import random
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS, METRICS, MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from mmbignas.errors import ConfigError
from mmbignas.evaluation.bn_calibration_hook import BNCalibrationHook
from mmbignas.ops import DynamicBatchNorm2d, DynamicConv2d
from mmbignas.space import ModuleSpace
from mmbignas.supernet import Supernet
from mmbignas.supernet.calibration import calibrate_bn
from tests.distributed import run_processes

NUM_IMAGES = 7
loaded_ids = []


@DATASETS.register_module(force=True)
class CountingDataset(CocoDataset):
    def prepare_data(self, idx):
        loaded_ids.append(self.get_data_info(idx)['img_id'])
        return super().prepare_data(idx)


class ToyBackbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.search_space = ModuleSpace(
            dict(depth=[1], out_channel=dict(space=dict(min=[4], max=[8], stride=4))), num_stages=1)
        self.conv, self.bn = DynamicConv2d(3, 8, 3, stride=2), DynamicBatchNorm2d(8)

    def apply_subnet(self, settings):
        self.conv.active_out_channels = settings['out_channel'][0]

    def forward(self, x):
        return self.bn(self.conv(x)).relu()


@MODELS.register_module(force=True)
class ToyDetector(BaseModel):
    def __init__(self, data_preprocessor):
        super().__init__(data_preprocessor)
        torch.manual_seed(3)
        self.backbone = ToyBackbone()
        nn.init.normal_(self.backbone.bn.running_mean)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        features = self.backbone(inputs)
        return [SimpleNamespace(mean=feature.mean().item()) for feature in features] if mode == 'predict' else features


@METRICS.register_module(force=True)
class MeanFeature(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += [sample.mean for sample in data_samples]

    def compute_metrics(self, results):
        return dict(mean=sum(results) / len(results))


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """A COCO data set of images of both orientations, some without objects."""
    folder, generator = tmp_path_factory.mktemp('coco'), np.random.default_rng(0)
    images, annotations = [], []
    for index in range(NUM_IMAGES):
        height, width = (40, 56) if index % 3 else (60, 44)
        cv2.imwrite(str(folder / f'{index}.png'), generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
        images.append(dict(id=index, file_name=f'{index}.png', height=height, width=width))
        if index % 4:
            annotations.append(dict(id=index, image_id=index, category_id=1, bbox=[4, 5, 20, 22], area=440, iscrowd=0,
                                    segmentation=[[4, 5, 24, 5, 24, 27]]))
    categories = [dict(id=1, name='thing')]
    (folder / 'all.json').write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return folder


def dataloader_cfg(root, num_workers=0, wrap=False, **kwargs):
    pipeline = [
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=False),
        dict(type='RandomResize', scale=[(48, 48), (72, 72)], keep_ratio=True), dict(type='RandomFlip', prob=.5),
        dict(type='PackDetInputs')]
    dataset = dict(type='CountingDataset', data_root=str(root), ann_file='all.json', data_prefix=dict(img=''),
                   metainfo=dict(classes=('thing', )), pipeline=pipeline)
    return dict(batch_size=2, num_workers=num_workers, sampler=dict(type='InfiniteSampler', shuffle=True),
                dataset=dict(type='RepeatDataset', times=3, dataset=dataset) if wrap else dataset, **kwargs)


def fake_runner(root=None, **kwargs):
    register_all_modules(init_default_scope=True)
    messages = []
    cfg = {} if root is None else dict(train_dataloader=dataloader_cfg(root, **kwargs))
    return SimpleNamespace(cfg=Config(cfg), build_dataloader=Runner.build_dataloader, messages=messages,
                           logger=SimpleNamespace(info=messages.append), model=model())


def model():
    return ToyDetector(dict(type='DetDataPreprocessor', mean=[120.] * 3, std=[60.] * 3, pad_size_divisor=8))


def subnet_eval(calib_bn=True):
    return SimpleNamespace(name='max', calib_bn=calib_bn)


def kept_batches(num_images=NUM_IMAGES, **kwargs):
    hook, runner = started(num_images, **kwargs)
    hook.before_subnet_eval(runner, subnet_eval())
    return hook.images.batches()


def started(num_images, root, **kwargs):
    """A hook in a run, and its runner."""
    hook, runner = BNCalibrationHook(num_images), fake_runner(root, **kwargs)
    hook.before_run(runner)
    return hook, runner


def ids_of(batches):
    return [sample.img_id for batch in batches for sample in batch['data_samples']]


def assert_same(first, second):
    assert ids_of(first) == ids_of(second)
    for one, other in zip(first, second):
        assert all(torch.equal(a, b) for a, b in zip(one['inputs'], other['inputs'], strict=True))


def test_options_are_checked():
    with pytest.raises(ConfigError, match=r'^BNCalibrationHook\.num_images must be an integer >= 1, got 0$'):
        BNCalibrationHook(num_images=0)
    with pytest.raises(ConfigError, match=r"^BNCalibrationHook\.dataloader must be the config of a dataloader, .*, got "
                                          r"\{'batch_size': 2\}$"):
        BNCalibrationHook(dataloader=dict(batch_size=2))


def test_config_without_train_dataloader(root):
    with pytest.raises(ConfigError, match=r'BNCalibrationHook\.dataloader must be .* as there is no train_dataloader'):
        BNCalibrationHook().before_run(fake_runner())
    hook, runner = BNCalibrationHook(3, dataloader_cfg(root)), fake_runner()
    hook.before_run(runner)
    hook.before_subnet_eval(runner, subnet_eval())
    assert len(ids_of(hook.images.batches())) == 3


@pytest.mark.parametrize('wrap', [False, True])
def test_missing_files_are_seen_before_the_run(root, wrap):
    cfg = dataloader_cfg(root, wrap=wrap)
    (cfg['dataset']['dataset'] if wrap else cfg['dataset'])['ann_file'] = 'none.json'
    where = r'\.dataset\.dataset' if wrap else r'\.dataset'
    with pytest.raises(ConfigError, match=rf'BNCalibrationHook\.dataloader{where}\.ann_file: .*none\.json'):
        BNCalibrationHook(dataloader=cfg).before_run(fake_runner(root))
    runner = fake_runner()
    runner.cfg = Config(dict(train_dataloader=cfg))
    with pytest.raises(ConfigError, match=rf'train_dataloader{where}\.ann_file: .*none\.json'):
        BNCalibrationHook().before_run(runner)


@pytest.mark.parametrize('kwargs', [
    {}, dict(wrap=True), dict(drop_last=True), dict(num_batch_per_epoch=1),
    dict(batch_sampler=dict(type='AspectRatioBatchSampler')),
    dict(batch_sampler=dict(type='AspectRatioBatchSampler', drop_last=True)),
    dict(persistent_workers=True, num_workers=1), dict(collate_fn=dict(type='pseudo_collate')), ], ids=str)
def test_each_image_once(root, kwargs):
    batches = kept_batches(root=root, **kwargs)
    assert sorted(ids_of(batches)) == list(range(NUM_IMAGES))
    assert max(len(batch['inputs']) for batch in batches) == 2


def test_kept_small_and_outside_shared_memory(root):
    batches = kept_batches(root=root, num_workers=1)
    for batch in batches:
        for image, sample in zip(batch['inputs'], batch['data_samples'], strict=True):
            assert image.dtype == torch.uint8 and not image.is_shared()
            assert sample.keys() == [] and sample.img_shape == image.shape[1:]


def test_same_images_whatever_loads_them(root):
    batches = kept_batches(5, root=root)
    assert_same(batches, kept_batches(5, root=root, num_workers=2))
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    random.seed(5)
    assert_same(batches, kept_batches(5, root=root))
    # The choice for more images contains the one for fewer, also with the same augmentations.
    assert ids_of(kept_batches(7, root=root))[:5] == ids_of(batches)
    assert ids_of(batches) != sorted(ids_of(batches))


def test_random_states_are_left_alone(root):
    hook, runner = started(4, root)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    hook.before_subnet_eval(runner, subnet_eval())
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


def test_loaded_once_and_only_when_needed(root):
    hook, runner = BNCalibrationHook(4), fake_runner(root)
    loaded_ids.clear()
    hook.before_run(runner)
    hook.before_subnet_eval(runner, subnet_eval(calib_bn=False))
    hook.after_subnet_eval(runner, subnet_eval(calib_bn=False))
    assert loaded_ids == []
    for _ in range(3):
        hook.before_subnet_eval(runner, subnet_eval())
        hook.after_subnet_eval(runner, subnet_eval())
    assert len(loaded_ids) == 4 == len(set(loaded_ids))
    assert any('4 images in 2 batches (' in message for message in runner.messages)


def test_data_set_smaller_than_asked_for(root):
    hook, runner = started(2048, root)
    hook.before_subnet_eval(runner, subnet_eval())
    assert sorted(ids_of(hook.images.batches())) == list(range(NUM_IMAGES))
    assert any('has 7 images, fewer than num_images=2048' in message for message in runner.messages)


def test_statistics_are_put_back(root):
    hook, runner = started(4, root)
    before = copy.deepcopy(runner.model.state_dict())
    expected = copy.deepcopy(runner.model)
    for _ in range(2):
        hook.before_subnet_eval(runner, subnet_eval())
        calibrate_bn(expected, hook.images.batches())
        assert all(torch.equal(value, expected.state_dict()[key]) for key, value in runner.model.state_dict().items())
        assert not torch.equal(runner.model.backbone.bn.running_mean, before['backbone.bn.running_mean'])
        hook.after_subnet_eval(runner, subnet_eval())
        assert all(torch.equal(value, before[key]) for key, value in runner.model.state_dict().items())


def run_cfg(root, work_dir, **kwargs):
    val_dataloader = dataloader_cfg(root)
    val_dataloader['sampler'] = dict(type='DefaultSampler', shuffle=False)
    return Config(dict(
        default_scope='mmdet', work_dir=str(work_dir), log_level='WARNING', train_dataloader=dataloader_cfg(root),
        model=dict(type='ToyDetector', data_preprocessor=dict(type='DetDataPreprocessor')),
        val_dataloader=val_dataloader, val_evaluator=dict(type='MeanFeature'),
        val_cfg=dict(type='mmbignas.SubnetValLoop', subnets=['max', 'min'], calib_bn='both'),
        train_cfg=dict(type='mmbignas.SandwichIterTrainLoop', max_iters=2, val_interval=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=.1)),
        custom_hooks=[dict(type='mmbignas.BNCalibrationHook', num_images=4)], **kwargs))


class Spy(Hook):
    """Keeps the statistics with which each batch is evaluated."""

    def __init__(self):
        self.seen = []

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        self.seen.append(copy.deepcopy(runner.model.state_dict()))


def test_validation_of_subnets(root, tmp_path):
    runner, spy = Runner.from_cfg(run_cfg(root, tmp_path)), Spy()
    runner.register_hook(spy)
    reference, before = copy.deepcopy(runner.model), copy.deepcopy(runner.model.state_dict())
    loaded_ids.clear()
    metrics = runner.val()
    assert set(metrics) == {'max/mean', 'max_calib/mean', 'min/mean', 'min_calib/mean'}
    assert len(loaded_ids) == 4 + 4 + 4 * NUM_IMAGES  # calibration, the trial before it, four evaluations
    batches = next(hook for hook in runner.hooks if isinstance(hook, BNCalibrationHook)).images.batches()
    expected = []
    for width in (8, 4):
        Supernet(reference).apply({'backbone': {'out_channel': [width]}})
        reference.load_state_dict(before)
        expected.append(before)
        calibrate_bn(reference, batches)
        expected.append(copy.deepcopy(reference.state_dict()))
    assert len(spy.seen) == 4 * 4  # 4 batches for each subnet, without and with calibration
    for index, state in enumerate(spy.seen):
        assert all(torch.equal(value, expected[index // 4][key]) for key, value in state.items())
    assert all(torch.equal(value, before[key]) for key, value in runner.model.state_dict().items())


def test_missing_files_stop_the_run_at_once(root, tmp_path):
    cfg = run_cfg(root, tmp_path)
    cfg.train_dataloader.dataset.ann_file = 'none.json'
    loaded_ids.clear()
    with pytest.raises(ConfigError, match=r'train_dataloader\.dataset\.ann_file: .*none\.json'):
        Runner.from_cfg(cfg).val()
    assert loaded_ids == []


def shares(rank, root):
    results = []
    for num_images in (5, 1, 100):
        hook, runner = started(num_images, root)
        hook.before_subnet_eval(runner, subnet_eval())
        results.append((ids_of(hook.images.batches()), runner.model.state_dict()))
    return results


def test_two_processes(root):
    register_all_modules(init_default_scope=True)
    first, second = run_processes(shares, root)
    for (ids, state), (other_ids, other_state), num_images in zip(first, second, (5, 1, NUM_IMAGES)):
        hook, runner = started(num_images, root)
        hook.before_subnet_eval(runner, subnet_eval())
        assert sorted(ids + other_ids) == sorted(ids_of(hook.images.batches())) and len(ids + other_ids) == num_images
        assert len(ids) == (num_images + 1) // 2
        assert all(torch.equal(value, other_state[key]) for key, value in state.items())
        # Batches are composed differently, and padded differently with it.
        torch.testing.assert_close(state['backbone.bn.running_mean'], runner.model.backbone.bn.running_mean, rtol=.2,
                                   atol=.2)
