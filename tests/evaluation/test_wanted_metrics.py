"""Metrics that a config names are known to be there, or not, before the first evaluation."""
import copy
import random

import pytest
import torch
from mmdet.registry import DATASETS
from mmengine.dataset import BaseDataset

from mmbignas.errors import ConfigError
from mmbignas.evaluation import SubnetEval
from tests.toy import ToyDataset, ToyMetric, ToyModel, build_runner, dataloader

Accuracy = pytest.importorskip('mmpretrain.evaluation').Accuracy


class Classifier(ToyModel):
    """Predicts in the form of MMPretrain, and counts how often."""

    count = [0]  # of this model and its copies

    def forward(self, inputs, data_samples=None, mode='tensor'):
        result = super().forward(inputs, data_samples, mode)
        if mode != 'predict':
            return result
        assert not self.training
        self.count[0] += 1
        return [dict(pred_score=own['logits'], gt_label=torch.tensor([own['label']]), **own) for own in result]


class NeverAsked(ToyMetric):
    """One's own, which is not to be disturbed."""

    def process(self, data_batch, data_samples):
        raise AssertionError('called')


@pytest.mark.parametrize(('stage', 'kind', 'arguments'), [
    ('test', 'SampleAccuracyLoop', {}), ('val', 'SampleAccuracyLoop', {}), ('test', 'SubnetSearchLoop', {}),
    ('test', 'EvaluateSubnetLoop', dict(latency=None))])
def test_names_of_library_metrics(tmp_path, stage, kind, arguments):
    """When the loop is built, so before a training too; what is there already stays as it is."""
    for name, allowed in (('accuracy/top1', True), ('accuracy/top3', False), ('acc/top1', False)):
        model, metric = Classifier().train(), Accuracy(topk=(1, 2))
        Classifier.count[0] = 0
        cfg = dict(type=f'mmbignas.{kind}', image_size=[6, 6], calib_bn=False, metric1=name, **arguments)
        runner = build_runner(tmp_path, model, metric=metric, **{f'{stage}_cfg': cfg})
        before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
        if allowed:
            getattr(runner, f'{stage}_loop')
        else:
            with pytest.raises(ConfigError) as error:
                getattr(runner, f'{stage}_loop')
            assert str(error.value) == f'{stage}_cfg.metric1 must be accuracy/top1 or accuracy/top2, got {name!r}'
        assert (model.count, model.training, metric.results) == ([1], True, [])
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
        assert torch.equal(torch.get_rng_state(), state)


def test_metrics_of_ones_own_are_left_alone(tmp_path):
    for name, allowed in (('toy/accuracy', True), ('toy/may_come', True), ('coco/bbox_mAP', False)):
        cfg = dict(type='mmbignas.SampleAccuracyLoop', image_size=[6, 6], calib_bn=False, metric2=name)
        runner = build_runner(tmp_path, Classifier(), metric=NeverAsked(), test_cfg=cfg)
        if allowed:
            assert runner.test_loop.survey.metric2 == name
        else:
            with pytest.raises(ConfigError, match='test_cfg.metric2 must be a name that begins with toy/, got '):
                assert runner.test_loop


def test_nothing_is_computed_where_nothing_is_asked(tmp_path):
    model = Classifier()
    model.count[0] = 0
    cfg = dict(type='mmbignas.SampleAccuracyLoop', image_size=[6, 6], calib_bn=False)
    loop = build_runner(tmp_path, model, metric=Accuracy(), test_cfg=cfg).test_loop
    assert (model.count, loop.survey.metric1) == ([0], None)
    assert loop.scorer.trial() == loop.scorer.trial() == ['accuracy/top1']
    assert model.count == [1]


@DATASETS.register_module()
class ToyPart(BaseDataset):
    """A toy's images, as one of several data sets."""

    def __init__(self, size, seed, **metainfo):
        self.own = ToyDataset(size, seed)
        super().__init__(metainfo=dict(classes=tuple('abcde'), **metainfo), serialize_data=False)

    def load_data_list(self):
        return [dict(number=number) for number in range(len(self.own))]

    def __getitem__(self, index):
        return self.own[index]


def parts_runner(folder, name, val_images=None, place='here'):
    """A Runner whose test has two data sets, each with a metric of its own."""
    own = [dict(type='ToyPart', size=7, seed=1, place='here'), dict(type='ToyPart', size=5, seed=2, place=place)]
    cfg = dict(type='mmbignas.SampleAccuracyLoop', image_size=[6, 6], calib_bn=False, metric1=name,
               val_images=val_images)
    return build_runner(
        folder, Classifier(), test_cfg=cfg,
        test_dataloader=dict(dataloader(1, 4), dataset=dict(type='ConcatDataset', datasets=own)),
        test_evaluator=dict(type='MultiDatasetsEvaluator', dataset_prefixes=['one', 'two'], metrics=[
            dict(type='mmpretrain.Accuracy'), dict(type='mmpretrain.Accuracy')]))


@pytest.mark.parametrize('val_images', [None, 6])
@pytest.mark.parametrize('place', ['here', 'elsewhere'])  # metainfo is one for both, or a list
def test_an_evaluator_of_several_data_sets(tmp_path, val_images, place):
    """Its names have those of the data sets in front; each metric sees the images of its own, also of a part."""
    with pytest.raises(ConfigError) as error:
        assert parts_runner(tmp_path, 'accuracy/top1', val_images, place).test_loop
    assert str(error.value) == (
        "test_cfg.metric1 must be one/accuracy/top1 or two/accuracy/top1, got 'accuracy/top1'")
    runner = parts_runner(tmp_path, 'two/accuracy/top1', val_images, place)
    scorer = runner.test_loop.scorer
    runner.call_hook('before_run')
    with scorer.running():
        found = scorer.evaluate(SubnetEval('max', scorer.supernet.space.max(), False))
    chosen = sorted(random.Random(0).sample(range(12), 6)) if val_images else range(12)
    for name, start, size, seed in (('one', 0, 7, 1), ('two', 7, 5, 2)):
        dataset, own = ToyDataset(size, seed), [index - start for index in chosen if start <= index < start + size]
        with torch.no_grad():
            best = runner.model.eval()(dataset.images[own] * 2 - .5).argmax(1)
        assert found[f'{name}/accuracy/top1'] == pytest.approx(
            float((best == dataset.labels[own]).double().mean() * 100), rel=1e-6)


def test_a_part_that_leaves_nothing_of_a_data_set(tmp_path):
    with pytest.raises(ConfigError, match='^test_cfg.val_images must be so many images that some are of each data set'):
        assert parts_runner(tmp_path, None, 1).test_loop
