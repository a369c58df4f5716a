"""The hooks that watch a training, in two processes with data of their own: what one sees, both act upon."""
import json
import math
import os
from pathlib import Path
from statistics import fmean

import pytest
import torch
from mmengine.config import Config

from mmbignas.train import CollapseHook, SkipNonFiniteHook, SubnetLossHook
from tests.distributed import run_processes
from tests.toy import PassRecorder, ToyDataset, ToyModel, build_runner, dataloader


class Broken(ToyDataset):
    """The images of one process in one batch are NaN: processes get every other image."""

    def __init__(self):
        super().__init__(48)
        self.images[12:24:2] = math.nan


def run(rank, folder):
    """Train in one of two processes; in the second iteration the first one's loss is NaN."""
    os.environ['LOCAL_RANK'] = str(rank)
    passes, warnings = PassRecorder(), []
    runner = build_runner(
        folder, ToyModel(), hooks=[passes, SkipNonFiniteHook(), CollapseHook(1), SubnetLossHook(interval=4)],
        launcher='pytorch', train_dataloader=dict(dataloader(6), dataset=Broken()),
        cfg=Config(dict(model_wrapper_cfg=dict(type='MMDistributedDataParallel', device_ids=None))))
    runner.logger.warning = warnings.append
    runner.train()
    losses = {name: list(map(float, runner.message_hub.log_scalars[f'train/{name}.loss'].data[0]))
              for name in ('max', 'random0', 'random1')}
    return dict(state=runner.model.module.state_dict(), losses=losses, passes=passes.passes,
                skipped=runner.message_hub.get_info('skipped_steps'),
                warnings=[warning for warning in warnings if 'optimizer step' in warning],
                watch=runner.message_hub.get_info('collapse_watch'), folder=runner.log_dir)


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    return run_processes(run, str(tmp_path_factory.mktemp('run')))


def test_both_skip(results):
    assert [own['skipped'] for own in results] == [1, 1]
    assert [math.isnan(own['losses']['max'][1]) for own in results] == [True, False]
    for name, value in results[0]['state'].items():
        assert value.isfinite().all(), name
        if 'running' not in name and 'num_batches' not in name:
            assert torch.equal(value, results[1]['state'][name]), name
    assert 'max, iteration 2, loss here nan' in results[0]['warnings'][0]
    assert 'max, iteration 2, loss here nan' not in results[1]['warnings'][0]
    assert 'max, iteration 2, loss here ' in results[1]['warnings'][0]


def test_means_are_over_both(results):
    means = [[fmean(pair) for pair in zip(*(own['losses'][name] for own in results))]
             for name in ('max', 'random0', 'random1')]
    for own in results:
        assert own['watch']['first'] == pytest.approx(means[0][:1], rel=1e-5)
    file = Path(results[0]['folder'], 'vis_data', 'scalars.json')
    line = next(line for line in map(json.loads, file.read_text().splitlines()) if 'subnet_loss' in str(line))
    assert line.pop('step') == 4
    drawn = [[own for own in results[0]['passes'] if own.name == name] for name in ('random0', 'random1')]
    for tag, value in line.items():
        element, wanted = tag.removeprefix('subnet_loss/backbone.').split('/')
        found = [loss for passes, losses in zip(drawn, means[1:]) for own, loss in zip(passes, losses)
                 if math.isfinite(loss) and str(own.subnet['backbone'][element][0]) == wanted]
        assert value == pytest.approx(fmean(found), rel=1e-5)
