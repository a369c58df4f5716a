"""A few images through training and evaluation: what fails is said before, and nothing is left behind."""
from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.evaluation.evaluator import MultiDatasetsEvaluator
from mmdet.evaluation.metrics import CocoMetric
from mmdet.registry import DATASETS
from mmengine.evaluator import Evaluator

from mmbignas.agreement.partial_evaluation import restricted, trial_evaluator
from mmbignas.agreement.trial_run import TrialFailure, evaluation_trial, train_trial
from mmbignas.data.fixed_images import ChosenImages
from mmbignas.errors import ConfigError
from mmbignas.ops import DynamicBatchNorm2d
from tests.agreement.small_data import coco, write_coco
from tests.toy import ToyModel, ToyRunner, build_runner, dataloader


class LastFeature(ToyModel):
    """Normalises features of a single pixel, as the towers of a detector's coarsest level do."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = DynamicBatchNorm2d(8)
        self.register_buffer('seen', torch.zeros(()))
        self.history: list[int] = []

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = 'tensor') -> Any:
        if mode == 'loss':
            self.seen += 1
            self.history.append(len(inputs))
            features = self.backbone(inputs).mean((2, 3), keepdim=True)
            torch.rand(1)
            return dict(loss=self.norm(features).square().mean())
        return super().forward(inputs, data_samples, mode)


def runner_of(folder: Any, images: int, batch_size: int = 3, loader: Any = (), **options: Any) -> ToyRunner:
    own = {**dataloader(images, batch_size), **dict(loader)}
    runner = build_runner(folder, LastFeature(), train_dataloader=own, **options)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    assert runner.train_loop
    return runner


def test_a_last_batch_of_one_image(tmp_path):
    """Which would end the training at the end of its first epoch."""
    with pytest.raises(ValueError, match='Expected more than 1 value per channel'):
        build_model_epoch(tmp_path)
    with pytest.raises(TrialFailure) as failure:
        train_trial(runner_of(tmp_path, 7))
    assert str(failure.value) == (
        'train_dataloader.drop_last must be True, or batch_size another, since the last of batches of 3 has one image, '
        'of which batch normalisation has a single value per channel')
    with pytest.raises(TrialFailure, match='batch_size must be at least 2, since batch normalisation'):
        train_trial(runner_of(tmp_path, 7, 1))
    train_trial(runner_of(tmp_path, 8))
    runner = build_runner(tmp_path, LastFeature(), train_dataloader=dict(dataloader(7, 3), drop_last=True))
    runner.train()


def build_model_epoch(folder: Any) -> None:
    """The epoch without a trial."""
    model = LastFeature().train()
    for batch in (slice(0, 3), slice(3, 6), slice(6, 7)):
        model(torch.rand(7, 3, 6, 6)[batch], mode='loss')


def test_nothing_is_left_behind(tmp_path):
    """Weights, statistics, buffers, what a model remembers, and all random states."""
    runner = runner_of(tmp_path, 8, val_cfg=dict())
    loop, model = runner.val_loop, runner.model
    before = copy.deepcopy(model.state_dict())
    flags = [module.training for module in model.modules()]
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    train_trial(runner)
    assert evaluation_trial(runner, loop.dataloader, loop.evaluator, 'val') == []  # metrics of one's own see nothing
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.history == [] and loop.evaluator.metrics[0].results == []
    assert [module.training for module in model.modules()] == flags
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[:2]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])


class Cache:
    """A transform that remembers its images, as MMDetection's CachedMosaic does."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        self.seen.append(results)
        return dict(inputs=torch.rand(3, 6, 6), data_samples=torch.tensor(0))


def test_what_transforms_remember(tmp_path):
    cache, runner = Cache(), runner_of(tmp_path, 4, loader=dict(dataset=write_coco(tmp_path), batch_size=2))
    dataset = runner.train_loop.dataloader.dataset.dataset
    dataset.pipeline = cache
    train_trial(runner)
    assert dataset.pipeline is cache and cache.seen == []
    assert runner.train_loop.dataloader.dataset[0] and len(cache.seen) == 1


def test_an_image_that_cannot_be_read(tmp_path):
    """In a trial, and in the middle of an epoch, also by a worker."""
    dataset = DATASETS.build(dict(write_coco(tmp_path), pipeline=[dict(type='LoadImageFromFile')]))
    runner = runner_of(tmp_path, 4, loader=dict(dataset=dataset, batch_size=2))
    for content in (b'', b'no image'):
        (tmp_path / '1.png').write_bytes(content)
        with pytest.raises(TrialFailure, match=rf'^train_dataloader.dataset: {tmp_path}/1.png: cannot be loaded, '):
            train_trial(runner)
        (tmp_path / '1.png').unlink()
    (tmp_path / '3.png').write_bytes(b'')
    with pytest.raises(ConfigError, match=rf'^{tmp_path}/3.png: cannot be loaded, error: '):
        runner.train_loop.dataloader.dataset[3]
    own = runner_of(tmp_path, 4, loader=dict(dataset=dataset, batch_size=2, num_workers=1, sampler=dict(
        type='DefaultSampler', shuffle=False)))
    (tmp_path / '0.png').write_bytes(b'')
    own.train_loop.dataloader.begin(0, 0)
    with pytest.raises(ConfigError) as error:
        next(iter(own.train_loop.dataloader))
    assert str(error.value).startswith(f'{tmp_path}/0.png: cannot be loaded, ') and '\n' not in str(error.value)


class Predictions(ToyModel):
    """Gives the first images back as predictions in MMPretrain's form."""

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = 'tensor') -> Any:
        result = super().forward(inputs, data_samples, mode)
        if mode != 'predict':
            return result
        return [dict(pred_score=own['logits'], gt_label=torch.tensor([own['label']])) for own in result]


def test_more_best_classes_than_there_are(tmp_path):
    """Which MMPretrain's accuracy says at the end of the first epoch."""
    accuracy = pytest.importorskip('mmpretrain.evaluation').Accuracy
    for topk, fits in (((1, 5), True), ((1, 6), False)):
        runner = build_runner(tmp_path, Predictions(), metric=accuracy(topk=topk), val_cfg=dict())
        loop = runner.val_loop
        if fits:
            names = evaluation_trial(runner, loop.dataloader, loop.evaluator, 'val')
            assert names == ['accuracy/top1', 'accuracy/top5']
        else:
            with pytest.raises(TrialFailure, match='^val_evaluator: does not take the first images, .*Top-6 accuracy'):
                evaluation_trial(runner, loop.dataloader, loop.evaluator, 'val')


def results_of(dataset: Any, index: int, score: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """The right boxes of an image as predictions, and a wrong class for one of them."""
    info = dataset.get_data_info(index)
    boxes = torch.tensor([own['bbox'] for own in info['instances']], dtype=torch.float)
    labels = torch.tensor([own['bbox_label'] for own in info['instances']])
    labels[0] = (labels[0] + index) % 3
    return dict(), dict(img_id=info['img_id'], ori_shape=(64, 64), pred_instances=dict(
        bboxes=boxes, labels=labels, scores=torch.full((len(boxes), ), score)))


@pytest.mark.parametrize('chosen', [[0, 1, 4], [1, 2, 3, 4, 5, 6], [3, 6]])
def test_parts_of_several_data_sets(tmp_path, chosen):
    """Each metric sees the images of its own data set, as if these were all there are."""
    parts = [coco(tmp_path / name, images=count, file=f'{name}.json') for name, count in (('a', 4), ('b', 3))]
    whole = DATASETS.build(dict(type='ConcatDataset', datasets=parts))
    evaluator = MultiDatasetsEvaluator([CocoMetric(ann_file=part.ann_file) for part in parts], ['a', 'b'])
    images = ChosenImages(whole, chosen)
    evaluator.dataset_meta = images.metainfo
    own = trial_evaluator(evaluator, images)
    assert type(own) is MultiDatasetsEvaluator and own.metrics[0] is not evaluator.metrics[0]
    for place in range(len(images)):
        own.process([results_of(images, place, .9)[1]])
    with restricted(own, images, range(len(images))):
        found = own.evaluate(len(images))
    for name, part, start in (('a', parts[0], 0), ('b', parts[1], 4)):
        alone = Evaluator([CocoMetric(ann_file=part.ann_file)])
        alone.dataset_meta = part.metainfo
        mine = [index for index in chosen if start <= index < start + len(part)]
        alone.metrics[0].img_ids = [part.get_data_info(index - start)['img_id'] for index in mine]
        for index in mine:
            alone.process([results_of(images, chosen.index(index), .9)[1]])
        expected = alone.evaluate(len(mine))
        assert expected['coco/bbox_mAP'] > 0
        for metric, value in expected.items():
            assert found[f'{name}/{metric}'] == value
    assert evaluator.metrics[0].img_ids is None and evaluator.metrics[0].results == []
