"""A loop of one's own around the scorer: it gets the metrics, and the model is as before."""
import random

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import LOOPS
from mmengine.runner import BaseLoop

from mmbignas.evaluation import SubnetEval, SubnetScorer
from mmbignas.supernet import Supernet
from tests.evaluation.test_subnet_val_loop import trained_model
from tests.toy import build_runner, calibration, expected_metrics


@LOOPS.register_module(force=True)
class EveryThirdLoop(BaseLoop):
    """Evaluates every third subnet of the space, the last one first."""

    def __init__(self, runner, dataloader, evaluator, calib_bn, **options):
        self.scorer = SubnetScorer(runner, dataloader, evaluator, calib_bn=calib_bn, **options)
        super().__init__(runner, self.scorer.dataloader)
        self.evaluator, self.calib_bn = self.scorer.evaluator, calib_bn

    def run(self):
        space = self.scorer.supernet.space
        with self.scorer.running() as metrics:
            for number in range(space.size - 1, -1, -3):
                subnet_eval = SubnetEval(str(number), space[number], self.calib_bn)
                metrics.update({(number, name): value for name, value in self.scorer.evaluate(subnet_eval).items()})
        return metrics


class Watch(Hook):
    def __init__(self, fail=None):
        self.calls, self.fail = [], fail

    def before_subnet_eval(self, runner, subnet_eval):
        assert Supernet(runner.model).current == subnet_eval.subnet and not runner.model.training
        self.calls.append(subnet_eval.name)
        torch.rand(3)
        if subnet_eval.name == self.fail:
            raise ArithmeticError

    def after_subnet_eval(self, runner, subnet_eval):
        self.calls.append(-int(subnet_eval.name))

    def before_test_iter(self, runner, batch_idx, data_batch):
        self.calls.append(None)


@pytest.mark.parametrize('many', [False, True])
@pytest.mark.parametrize('calib_bn', [False, True])
@pytest.mark.parametrize('fail', [None, '5'])
def test_a_loop_of_ones_own(tmp_path, many, calib_bn, fail):
    model, watch = trained_model().train(), Watch(fail)
    model.backbone.blocks[0].eval()
    flags = [module.training for module in model.modules()]
    supernet = Supernet(model)
    before = supernet.apply(supernet.space.sample(random.Random(3)))
    runner = build_runner(tmp_path, model, hooks=[calibration(), watch],
                          test_cfg=dict(type='EveryThirdLoop', calib_bn=calib_bn, many=many))
    runner.call_hook('before_run')
    loop = runner.test_loop
    state = torch.get_rng_state()
    numbers = range(supernet.space.size - 1, -1, -3)
    if fail is None:
        metrics = loop.run()
        assert list(metrics) == [(number, f'toy/{name}') for number in numbers for name in ('accuracy', 'likelihood')]
        for number in numbers:
            found = {name: metrics[number, name] for name in ('toy/accuracy', 'toy/likelihood')}
            assert found == pytest.approx(expected_metrics(model, supernet.space[number], calib_bn), rel=1e-5)
        batches = [] if many else [None] * len(loop.dataloader)
        assert watch.calls == [call for number in numbers for call in (str(number), *batches, -number)]
    else:
        with pytest.raises(ArithmeticError):
            loop.run()
    assert (supernet.current, loop.scorer.stage) == (before, 'test')
    assert [module.training for module in model.modules()] == flags
    assert torch.equal(torch.get_rng_state(), state)
