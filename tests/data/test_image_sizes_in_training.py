"""Image sizes in training and evaluation: which pass sees which size, what it sees, and what its teacher saw."""
from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import nn
from torch.nn import functional as F

from mmbignas.data.image_sizes import network_stride
from mmbignas.distill import DistillHook
from mmbignas.errors import ConfigError
from mmbignas.evaluation import BNCalibrationHook
from mmbignas.space import SearchSpace
from mmbignas.supernet import Supernet, calibrate_bn
from mmbignas.train.sandwich_rule import SandwichRule
from tests import small_classifiers, small_models
from tests.toy import (
    ToyDataset,
    ToyModel,
    build_runner,
    calibration_batches,
    dataloader,
    train_batches,
)

SIZES = [(4, 4), (6, 6), (5, 5)]
ASCENDING = [(4, 4), (5, 5), (6, 6)]
STRATEGY = ['max', 'min', 'random', 'random', 'middle']
JOBS = dict(scores=dict(mimic_name='head', loss=dict(type='mmbignas.SoftLabelLoss')))
FEATURES = dict(feature=dict(mimic_name='backbone', loss=dict(type='mmbignas.FeatureMSELoss')))


class Watch(Hook):
    """What each pass is, and a copy of what it sees."""

    def __init__(self) -> None:
        self.passes: list[Any] = []
        self.seen: list[Any] = []
        self.states: list[Any] = []

    def before_subnet_forward(self, runner: Any, subnet_pass: Any) -> None:
        self.passes.append(subnet_pass)
        self.seen.append(runner.train_loop.data)
        self.states.append(copy.deepcopy(runner.model.state_dict()))

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        assert runner.train_loop.data is None


def train(folder: Path, hooks: Any = (), batches: int = 4, model: Any = None, **train_cfg: Any) -> tuple[Any, Watch]:
    watch = Watch()
    cfg = dict(sample_subnet_num=5, sample_strategy=STRATEGY, image_size_list=SIZES)
    runner = build_runner(folder, model, hooks=[*hooks, watch], train_cfg={**cfg, **train_cfg}, batches=batches)
    runner.train()
    return runner, watch


def test_sizes_follow_the_subnets() -> None:
    space = Supernet(ToyModel()).space
    rule, drawn = SandwichRule(space, 5, STRATEGY, SIZES), set()
    for iteration in range(60):
        own = rule.passes(3, iteration)
        assert own == SandwichRule(space, 5, STRATEGY, SIZES).passes(3, iteration)
        assert [own[index].image_size for index in (0, 1, 4)] == [(6, 6), (4, 4), (5, 5)]
        assert all(one.subnet.image_size == one.image_size for one in own)
        assert own[0].is_max and dict(own[0].subnet) == dict(space.max()) and dict(own[1].subnet) == dict(space.min())
        drawn.update((own[2].image_size, own[3].image_size))
    assert drawn == set(ASCENDING)


def test_a_shared_size() -> None:
    space = Supernet(ToyModel()).space
    rule = SandwichRule(space, 5, STRATEGY, SIZES, share_interpolation=True)
    sizes = []
    for iteration in range(60):
        own = rule.passes(3, iteration)
        assert len({one.image_size for one in own}) == 1 and all(one.subnet.image_size is None for one in own)
        assert own[0].is_max and own[0].subnet == space.max()
        sizes.append(own[0].image_size)
    assert set(sizes) == set(ASCENDING)
    assert any(first != second for first, second in zip(sizes, sizes[1:]))


def test_a_draw_of_the_largest_at_another_size_is_the_largest() -> None:
    """It must not be a student of itself."""
    space = Supernet(ToyModel()).space
    settings = {**space.max().to_dict(), 'image_size': [4, 4]}
    own = SandwichRule(space, 2, ['max', settings], SIZES).passes(0, 0)
    assert [one.is_max for one in own] == [True, True]
    assert [one.image_size for one in own] == [(6, 6), (4, 4)]


def test_settings_without_a_size_are_refused() -> None:
    space = Supernet(ToyModel()).space
    with pytest.raises(ConfigError, match=r'train_cfg.sample_strategy\[1\]: .*image_size is missing'):
        SandwichRule(space, 2, ['max', space.min().to_dict()], SIZES)
    rule = SandwichRule(space, 2, ['max', space.min().to_dict()], SIZES, share_interpolation=True)
    assert rule.passes(0, 0)[1].subnet == space.min()


@pytest.mark.parametrize('mode', ['bicubic', 'bilinear', 'nearest', 'area'])
def test_each_pass_is_resized_from_the_batch(tmp_path: Path, mode: str) -> None:
    """By torch's own interpolation, of the preprocessed batch, never of what another pass saw."""
    runner, watch = train(tmp_path, interpolation_type=mode)
    options = dict(antialias=True) if mode in ('bicubic', 'bilinear') else {}
    for own, seen in zip(watch.passes, watch.seen):
        batch = train_batches()[own.iteration]
        images = batch['inputs'] * 2 - .5
        scale = min(max(own.image_size) / 6, min(own.image_size) / 6)  # as MMDetection scales, keeping the ratio
        size = int(6 * scale + .5)
        expected = images if size == 6 else F.interpolate(images, (size, size), mode=mode, **options)
        assert torch.equal(seen['inputs'], expected)
        assert torch.equal(seen['data_samples'], batch['data_samples'])
    by_size = {(own.iteration, own.image_size): set() for own in watch.passes}
    for own, seen in zip(watch.passes, watch.seen):
        by_size[own.iteration, own.image_size].add(id(seen))
    assert all(len(ids) == 1 for ids in by_size.values())  # resized once for all passes of that size


def test_one_size_is_no_dimension(tmp_path: Path) -> None:
    runner, watch = train(tmp_path, image_size_list=[[4, 4]])
    assert {(own.image_size, own.subnet.image_size) for own in watch.passes} == {((4, 4), None)}
    assert {tuple(seen['inputs'].shape[2:]) for seen in watch.seen} == {(4, 4)}


def test_boxes_of_a_detector_follow(tmp_path: Path) -> None:
    """Boxes, shapes and scale factors of each pass; the samples of the data set stay as they are."""
    model = small_models.build(small_models.retinanet())
    shapes = ((96, 128), (128, 128))
    inputs = [torch.randint(0, 255, (3, *shape), dtype=torch.uint8) for shape in shapes]
    boxes = [[[4., 6., 40., 50.], [20., 8., 62., 60.]], [[10., 10., 54., 44.]]]
    data = dict(inputs=inputs, data_samples=[
        small_models.samples([own], size=shape)[0] for own, shape in zip(boxes, shapes)])
    before = [sample.gt_instances.bboxes.clone() for sample in data['data_samples']]
    watch = Watch()
    runner = build_runner(
        tmp_path, model, hooks=[watch], train_dataloader=dict(
            dataset=[dict(inputs=image, data_samples=sample)
                     for image, sample in zip(data['inputs'], data['data_samples'])],
            batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='pseudo_collate')),
        train_cfg=dict(sample_subnet_num=3, sample_strategy=['max', 'min', 'random'],
                       image_size_list=[[64, 64], [96, 96], [128, 128]]))
    runner.train()
    assert {own.image_size for own in watch.passes} >= {(64, 64), (128, 128)}
    for own, seen in zip(watch.passes, watch.seen):
        side = own.image_size[0]
        assert tuple(seen['inputs'].shape[2:]) == own.image_size
        for sample, original, old in zip(seen['data_samples'], before, shapes):
            height, width = sample.img_shape
            assert (height, width) == (old[0] * side // 128, old[1] * side // 128)
            factor = torch.tensor([width / old[1], height / old[0]] * 2)
            torch.testing.assert_close(sample.gt_instances.bboxes.as_subclass(torch.Tensor), original * factor)
            assert sample.batch_input_shape == own.image_size
            assert all(side % 32 == 0 for side in sample.pad_shape)
    for sample, boxes in zip(data['data_samples'], before):
        assert torch.equal(sample.gt_instances.bboxes, boxes)


def logits_of(state: Any, subnet: Any, images: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """Outputs of a copy of the model in training, and the copy."""
    model = ToyModel()
    model.load_state_dict(state)
    model.train()
    Supernet(model).apply({path: subnet[path] for path in subnet})
    return model(images), model


@pytest.mark.parametrize('same_pixels', [True, False])
def test_what_the_teacher_in_place_saw(tmp_path: Path, same_pixels: bool) -> None:
    runner, watch = train(tmp_path, [DistillHook(JOBS, same_pixels=same_pixels)])
    history = {name: iter(buffer.data[0]) for name, buffer in runner.message_hub.log_scalars.items()}
    space = Supernet(ToyModel()).space
    for index, own in enumerate(watch.passes):
        if own.is_max:
            first = index
            continue
        state = watch.states[first]  # running statistics do not matter in training
        student, _ = logits_of(state, own.subnet, watch.seen[index]['inputs'])
        teacher, _ = logits_of(state, space.max(), watch.seen[index if same_pixels else first]['inputs'])
        p, q = teacher.double().log_softmax(1), student.double().log_softmax(1)
        expected = (p.exp() * (p - q)).sum(1).mean().item()
        logged = next(history[f'train/{own.name}.loss_distill_scores'])
        assert logged == pytest.approx(expected, rel=1e-3, abs=1e-7)


def test_the_logged_loss_of_a_pass_is_its_total(tmp_path: Path) -> None:
    """Also of a classifier, one of whose losses is called ``loss``."""

    class Named(ToyModel):
        def forward(self, inputs: Any, data_samples: Any = None, mode: str = 'tensor') -> Any:
            result = super().forward(inputs, data_samples, mode)
            return dict(loss=result['loss_cls']) if mode == 'loss' else result

    runner, watch = train(tmp_path, [DistillHook(JOBS)], model=Named())
    logged = {name: buffer.data[0].tolist() for name, buffer in runner.message_hub.log_scalars.items()}
    names = {own.name for own in watch.passes}
    for index, total in enumerate(logged['train/loss']):
        assert total == pytest.approx(sum(logged[f'train/{name}.loss'][index] for name in names), rel=1e-5)
    assert all(value > 0 for value in logged['train/min.loss_distill_scores'])


def test_the_teachers_extra_pass_leaves_no_trace(tmp_path: Path) -> None:
    """Statistics move as without distillation, and the student's settings are those that it had."""
    ends, jobs = [], dict(scores=dict(JOBS['scores'], loss_weight=0))
    for hooks in ([], [DistillHook(jobs)]):
        runner, watch = train(tmp_path / str(len(hooks)), hooks)
        ends.append(runner.model.state_dict())
        assert watch.passes
    assert ends[0].keys() == ends[1].keys()
    for name, value in ends[0].items():
        assert torch.equal(value, ends[1][name]), name


def test_features_need_the_same_pixels(tmp_path: Path) -> None:
    train(tmp_path / 'same', [DistillHook(FEATURES)])
    train(tmp_path / 'shared', [DistillHook(FEATURES)], share_interpolation=True)
    with pytest.raises(ConfigError, match=r"same_pixels must be True with .*jobs.feature.mimic_name 'back"):
        train(tmp_path / 'other', [DistillHook(FEATURES, same_pixels=False)])


class PlainTeacher(BaseModel):
    """No supernet."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 5)

    def forward(self, inputs: torch.Tensor, data_samples: Any = None, mode: str = 'tensor') -> torch.Tensor:
        return self.fc(inputs.mean((2, 3)))


def test_an_external_teacher_sees_the_students_pixels(tmp_path: Path) -> None:
    """And computes once for each image size of an iteration."""
    torch.save(dict(state_dict=PlainTeacher().state_dict()), tmp_path / 'teacher.pth')
    hook = DistillHook(dict(scores=dict(JOBS['scores'], teacher_mimic_name='fc')), teacher=dict(
        config=dict(type=PlainTeacher), checkpoint=str(tmp_path / 'teacher.pth')))
    seen: list[int] = []

    class Count(Hook):
        priority = 'VERY_LOW'

        def before_train(self, runner: Any) -> None:
            hook._distillations[0].teacher.register_forward_pre_hook(
                lambda module, args, kwargs: seen.append(id(kwargs['inputs'])), with_kwargs=True)

    runner, watch = train(tmp_path / 'run', [hook, Count()])
    sizes = [{own.image_size for own in watch.passes if own.iteration == iteration} for iteration in range(4)]
    assert len(seen) == sum(map(len, sizes))
    assert set(seen) == {id(own['inputs']) for own in watch.seen}
    assert len(seen) < len(watch.seen)


@pytest.mark.parametrize(('sizes', 'message'), [
    ([[4, 4], [4, 6]], r'^train_cfg.image_size_list must be of the ratio .*\[6, 6\] become \[4, 4\].*, got \[4, 6\]'),
    ([[6, 6], [8, 8]], r'^train_cfg.image_size_list must be at most \[6, 6\], .*, got \[8, 8\]')])
def test_images_that_cannot_be_of_that_size(tmp_path: Path, sizes: list, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train(tmp_path, image_size_list=sizes)


@pytest.mark.parametrize(('train_cfg', 'message'), [
    (dict(image_size_list=[]), r'train_cfg.image_size_list must be a list of .*, or None, got \[\]'),
    (dict(image_size_list=[[4, 4], [4, 0]]), r'train_cfg.image_size_list must be height and width .*, got \[4, 0\]'),
    (dict(image_size_list=[4, 6]), r'train_cfg.image_size_list must be a list of .*, got \[4, 6\]'),
    (dict(image_size_list=[[4, 4], [4, 4]]), r'image_size must be a list of different .*, got \[\(4, 4\), \(4, 4\)\]'),
    (dict(interpolation_type='lanczos'), "train_cfg.interpolation_type must be one of nearest, .*, got 'lanczos'"),
    (dict(share_interpolation='yes'), "train_cfg.share_interpolation must be True or False, got 'yes'"),
])
def test_bad_arguments(tmp_path: Path, train_cfg: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train(tmp_path, **train_cfg)


def test_one_size_of_an_evaluation(tmp_path: Path) -> None:
    """A list of one size is what images are resized to; one size alone says nothing of what to do with them."""
    sizes = ValSizes()
    runner = build_runner(tmp_path, hooks=[sizes], val_cfg=dict(subnets=['max'], image_size=[[4, 4]]))
    runner.val()
    assert set(sizes.sizes) == {(4, 4)}
    with pytest.raises(ConfigError, match=r'val_cfg.image_size must be a list of .*, or None, got \[4, 4\]'):
        build_runner(tmp_path, val_cfg=dict(subnets=['max'], image_size=[4, 4])).val()


@pytest.mark.parametrize(('config', 'stride'), [
    (small_classifiers.regnet_classifier(), None), (small_classifiers.mobile_classifier(), None),
    (small_classifiers.resnet_classifier(), 32), (small_models.retinanet(), 32)])
def test_a_size_below_the_stride(tmp_path: Path, config: Any, stride: int | None) -> None:
    model = small_models.build(config)
    stride = stride or torch.tensor(model.backbone.strides).prod().item()
    assert network_stride(model) == stride
    with pytest.raises(ConfigError, match='multiples of 32' if 'bbox_head' in config else (
            fr'train_cfg.image_size_list must be height and width >= {stride}, .*, got \[{stride - 1}, 64\]')):
        train(tmp_path, model=model, image_size_list=[[stride - 1, 64], [64, 64]])


class ValSizes(Hook):
    """The sizes of the images that are evaluated."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, ...]] = []

    def before_val(self, runner: Any) -> None:
        if not self.sizes:
            runner.model.register_forward_pre_hook(self.note, with_kwargs=True)

    def note(self, model: Any, args: tuple, kwargs: dict) -> None:
        if kwargs.get('mode') == 'predict':
            self.sizes.append(tuple(kwargs['inputs'].shape[2:]))


@pytest.mark.parametrize('calib_bn', [True, False])
def test_subnets_are_evaluated_in_their_own_size(tmp_path: Path, calib_bn: bool) -> None:
    """The metrics are those of the resized images, with statistics of resized images."""
    model, sizes = ToyModel(), ValSizes()
    runner = build_runner(
        tmp_path, model, hooks=[BNCalibrationHook(12, dataloader(24)), sizes],
        val_cfg=dict(subnets=['max', 'middle', 'min'], calib_bn=calib_bn, image_size=SIZES))
    metrics = runner.val()
    assert set(sizes.sizes) == {(6, 6), (5, 5), (4, 4)}
    [path] = Path(runner.work_dir).glob('*/subnets_val.jsonl')
    assert [json.loads(line)['subnet_settings']['image_size'] for line in path.read_text().splitlines()] == [
        [6, 6], [5, 5], [4, 4]]
    space, dataset = SearchSpace(Supernet(model).space.modules, SIZES), ToyDataset(10, seed=1)
    for name, side in (('max', 6), ('middle', 5), ('min', 4)):
        subnet, own = getattr(space, name)(), copy.deepcopy(model).eval()
        Supernet(own).apply(subnet)

        def resized(images: torch.Tensor, side: int = side) -> torch.Tensor:
            return images if side == 6 else F.interpolate(images, (side, side), mode='bicubic', antialias=True)

        if calib_bn:
            own.data_preprocessor.forward = lambda data, training=False: {  # type: ignore[method-assign]
                **data, 'inputs': resized(data['inputs'] * 2 - .5)}
            calibrate_bn(own, calibration_batches())
        with torch.no_grad():
            logits = own.eval()(resized(dataset.images * 2 - .5)).double()
        likelihood = logits.log_softmax(1)[torch.arange(10), dataset.labels].mean().item()
        prefix = f'{name}_calib' if calib_bn else name
        assert metrics[f'{prefix}/toy/likelihood'] == pytest.approx(likelihood, rel=1e-5)
