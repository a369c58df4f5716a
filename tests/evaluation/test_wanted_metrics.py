"""Metrics that a config names are known to be there, or not, before the first evaluation."""
import copy

import pytest
import torch

from mmbignas.errors import ConfigError
from tests.toy import ToyMetric, ToyModel, build_runner

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
