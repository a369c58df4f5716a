"""Metrics at full precision and of a part of the images, against pycocotools used by hand."""
import builtins
import contextlib
import io
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.evaluation.metrics import CocoMetric, CrowdHumanMetric, OpenImagesMetric, VOCMetric
from mmdet.evaluation.metrics import coco_metric as coco_module
from mmdet.registry import DATASETS
from mmengine.evaluator import BaseMetric, Evaluator
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmbignas.agreement.partial_evaluation import restricted
from mmbignas.errors import ConfigError
from mmbignas.evaluation.metrics import completed, without_number
from mmbignas.utils.adaptations import exact_metrics
from tests.runs import python

CLASSES = ('circle', 'square', 'triangle')
NAMES = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')


class OwnMetric(CocoMetric):
    """Somebody's own, in a module of its own."""

    def compute_metrics(self, results):
        metrics = super().compute_metrics(results)
        return {**metrics, 'third': round(1 / 3, 2), 'whole': round(1.7), 'tens': round(17.3, -1)}


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp('shapes')
    python('tools/make_shapes.py', folder, '--train', 1, '--val', 12, '--size', 64)
    return DATASETS.build(dict(
        type='mmdet.CocoDataset', data_root=str(folder), ann_file='annotations/val.json', data_prefix=dict(img='val/'),
        metainfo=dict(classes=CLASSES), test_mode=True, pipeline=[]))


@pytest.fixture(scope='module')
def ann_file(dataset):
    return dataset.ann_file


def evaluator_of(dataset, metric=CocoMetric, **kwargs):
    evaluator = Evaluator([metric(**kwargs)])
    evaluator.dataset_meta = dataset.metainfo
    return evaluator


def predictions(dataset, seed=0):
    """For each image: its boxes, moved a little, and some false ones."""
    rng = np.random.default_rng(seed)
    results = []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        boxes = np.array([own['bbox'] for own in info['instances']], np.float32).reshape(-1, 4)
        boxes = np.concatenate([boxes + rng.normal(0, 2, boxes.shape), [[5, 5, 30, 30]]]).astype(np.float32)
        labels = np.array([*(own['bbox_label'] for own in info['instances']), rng.integers(3)])
        results.append(dict(img_id=info['img_id'], ori_shape=(64, 64), pred_instances=dict(
            bboxes=torch.from_numpy(boxes), scores=torch.from_numpy(rng.random(len(boxes), np.float32)),
            labels=torch.from_numpy(labels)), instances=info['instances']))
    return results


def evaluate(evaluator, results):
    for result in results:
        evaluator.metrics[0].process({}, [result])
    return evaluator.evaluate(len(results))


def by_hand(ann_file, results, ids=None):
    """pycocotools on a file that has these images alone."""
    content = json.loads(Path(ann_file).read_text())
    if ids is not None:
        content['images'] = [image for image in content['images'] if image['id'] in ids]
        content['annotations'] = [own for own in content['annotations'] if own['image_id'] in ids]
    ground_truth = COCO()
    ground_truth.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth.createIndex()
        categories = {own['name']: own['id'] for own in content['categories']}
        found = ground_truth.loadRes([dict(
            image_id=result['img_id'], category_id=categories[CLASSES[label]], score=float(score),
            bbox=[*box[:2], box[2] - box[0], box[3] - box[1]])
            for result in results for box, score, label in zip(*(
                result['pred_instances'][name].tolist() for name in ('bboxes', 'scores', 'labels')))])
        evaluation = COCOeval(ground_truth, found, 'bbox')
        evaluation.params.maxDets = [100, 300, 1000]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def test_full_precision(dataset, ann_file):
    results = predictions(dataset)
    expected = by_hand(ann_file, results)
    for metric in (CocoMetric, OwnMetric):
        evaluator = evaluator_of(dataset, metric, ann_file=ann_file, classwise=True)
        with exact_metrics(evaluator), exact_metrics(evaluator):
            found = evaluate(evaluator, results)
        rounded = evaluate(evaluator, results)
        for name, value in zip(NAMES, expected.stats):
            assert found[f'coco/bbox_{name}'] == value
            assert rounded[f'coco/bbox_{name}'] == round(value, 3)
        assert any(found[name] != rounded[name] for name in found)
        for index, name in enumerate(CLASSES):
            precision = expected.eval['precision'][:, :, index, 0, -1]
            assert found[f'coco/{name}_precision'] == np.mean(precision[precision > -1])
        if metric is OwnMetric:
            assert (found['coco/third'], rounded['coco/third']) == (1 / 3, .33)
            assert (found['coco/whole'], found['coco/tens']) == (2, 20.)
            assert isinstance(found['coco/whole'], int)


def test_other_metrics_of_mmdetection(dataset):
    ground_truth = [dict(gt_instances=dict(
        bboxes=torch.tensor([own['bbox'] for own in result['instances']]).view(-1, 4),
        labels=torch.tensor([own['bbox_label'] for own in result['instances']])), **result)
        for result in predictions(dataset)]
    for own in ground_truth:
        own['gt_instances'].update(bboxes_ignore=torch.zeros(0, 4))
        own.update(ignored_instances=dict(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)))
    evaluator = evaluator_of(dataset, VOCMetric, iou_thrs=[.5])
    with exact_metrics(evaluator):
        found = evaluate(evaluator, ground_truth)
    assert found['pascal_voc/mAP'] == pytest.approx(found['pascal_voc/AP50'], rel=1e-12)
    assert found['pascal_voc/AP50'] != evaluate(evaluator, ground_truth)['pascal_voc/AP50']


def test_round_comes_back_after_an_exception(dataset, ann_file):
    evaluator = evaluator_of(dataset, OwnMetric, ann_file=ann_file)
    with pytest.raises(KeyError), exact_metrics(evaluator):
        assert coco_module.round(.12345, 3) == .12345
        assert builtins.round(.12345, 3) == .123
        raise KeyError
    assert not hasattr(coco_module, 'round') and 'round' not in globals()


@pytest.mark.parametrize('with_file', [True, False])
def test_a_part_of_the_images(dataset, ann_file, with_file):
    results, rng = predictions(dataset), random.Random(0)
    evaluator = evaluator_of(dataset, ann_file=ann_file if with_file else None)
    with exact_metrics(evaluator):
        if with_file:
            whole = evaluate(evaluator, results)
        for count in (1, 3, 8, 12):
            indices = rng.sample(range(12), count)
            chosen = [results[index] for index in indices]
            with restricted(evaluator, dataset, indices):
                found = evaluate(evaluator, chosen)
            expected = by_hand(ann_file, chosen, {result['img_id'] for result in chosen}).stats
            for name, value in list(zip(NAMES, expected))[:3 if not with_file else None]:
                # Without a file the annotations are made of the results, with areas of boxes.
                assert found[f'coco/bbox_{name}'] == value
        again = evaluate(evaluator, results)
    expected = by_hand(ann_file, results).stats
    assert again['coco/bbox_mAP'] == expected[0]
    if with_file:
        assert again == whole


def test_what_it_was_comes_back_after_an_exception(dataset, ann_file):
    evaluator = evaluator_of(dataset, ann_file=ann_file)
    with pytest.raises(KeyError), restricted(evaluator, dataset, [3, 4]):
        assert evaluator.metrics[0].img_ids == [dataset.get_data_info(index)['img_id'] for index in (3, 4)]
        raise KeyError
    assert evaluator.metrics[0].img_ids is None


def test_metrics_that_need_no_restriction(dataset):
    class Plain(BaseMetric):
        def process(self, data_batch, data_samples):
            self.results += data_samples

        def compute_metrics(self, results):
            return dict(count=len(results))

    for kind in (Plain, VOCMetric, OpenImagesMetric):
        with restricted(evaluator_of(dataset, kind), object(), [1, 2]):
            pass


def test_what_cannot_be_restricted(dataset, ann_file):
    evaluator = Evaluator([CrowdHumanMetric(ann_file=ann_file)])
    with pytest.raises(ConfigError, match=r'^val_evaluator\[0\] must be CocoMetric, .*CrowdHumanMetric'):
        restricted(evaluator, dataset, [0]).__enter__()
    evaluator = evaluator_of(dataset, ann_file=ann_file)
    with pytest.raises(ConfigError, match=r"^test_dataloader\.dataset must be a data set of MMDetection .*'list'"):
        restricted(evaluator, [], [0], 'test').__enter__()
    assert evaluator.metrics[0].img_ids is None


def test_metrics_of_several_subnets_side_by_side():
    """What one lacks is 0, since it detected nothing, but for what is no number for those that have it."""
    nan = float('nan')
    first, second, third = completed([dict(mAP=.5, cell=nan, own='a'), {}, dict(mAP=.25, cell=nan, some=nan)])
    assert (first['mAP'], second['mAP'], third['mAP'], second['own']) == (.5, 0., .25, 0.)
    assert all(np.isnan(own[name]) for own in (first, second, third) for name in ('cell', 'some'))
    lines = without_number([dict(number=1, metrics=dict(a=1., b=None)), dict(number=2, metrics={})])
    assert lines == [dict(number=1, metrics=dict(a=1., b=None)), dict(number=2, metrics=dict(b=None))]
    assert completed([]) == []
