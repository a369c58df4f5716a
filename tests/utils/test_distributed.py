"""Process groups on a CPU: started by each launcher, with the config's timeout; jobs of which one process dies."""
import os
import signal
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as torch_dist
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, RUNNERS

from mmbignas.errors import ConfigError
from mmbignas.registry import HOOKS, MODELS
from mmbignas.utils.distributed import build_runner, distribute_on_cpu
from tests.processes import call, free_port, python
from tests.toy import ToyDataset, ToyModel, ToyRunner

CONFIG = """
custom_imports = dict(imports=['mmbignas', 'tests.utils.test_distributed'], allow_failed_imports=False)
default_scope = 'mmdet'
runner_type = 'ToyRunner'
model = dict(type='mmbignas.ToyOfProcesses')
train_dataloader = dict(dataset=dict(type='mmengine.DataOfProcesses', size=48), batch_size=4, num_workers=0,
                        sampler=dict(type='DefaultSampler'), collate_fn=dict(type='default_collate'))
train_cfg = dict(type='mmbignas.SandwichTrainLoop', max_epochs=1)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=.1))
custom_hooks = [dict(type='mmbignas.EndingHook', ending={ending!r})]
"""
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason='with CUDA, MMEngine starts the group')

MODELS.register_module('ToyOfProcesses', module=ToyModel)
DATASETS.register_module('DataOfProcesses', module=ToyDataset)
RUNNERS.register_module(module=ToyRunner)


@HOOKS.register_module()
class EndingHook(Hook):
    """Ends the second process before its third iteration."""

    def __init__(self, ending):
        self.ending = ending

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.rank == 1 and runner.iter == 2:
            if self.ending == 'kill':
                os.kill(os.getpid(), signal.SIGKILL)
            raise ConfigError('iteration 2 is not allowed')


SCONTROL = """#!/bin/sh
[ "$1 $2 $3" = 'show hostname node[1-2]' ] && printf 'localhost\\nelsewhere\\n'
"""


def environment(launcher, rank, folder, port):
    """What the launcher leaves in the environment of one of two processes, each on a node of its own."""
    if launcher == 'pytorch':
        return dict(RANK=str(rank), WORLD_SIZE='2', LOCAL_RANK='0', MASTER_ADDR='localhost', MASTER_PORT=port)
    if launcher == 'mpi':
        return dict(OMPI_COMM_WORLD_RANK=str(rank), OMPI_COMM_WORLD_SIZE='2', OMPI_COMM_WORLD_LOCAL_RANK='0',
                    MASTER_ADDR='localhost', MASTER_PORT=port)
    return dict(SLURM_PROCID=str(rank), SLURM_NTASKS='2', SLURM_LOCALID='0', SLURM_NODELIST='node[1-2]',
                PATH=f'{folder}{os.pathsep}{os.environ["PATH"]}')


def process(rank, folder, ports):
    """Build a Runner under each launcher in turn; under the last one, wait for a process that does not come."""
    results = {}
    for launcher, port in ports.items():
        os.environ.update(environment(launcher, rank, folder, port))
        # Slurm's processes are told the port by the config.
        group = dict(backend='nccl', timeout=6, **(dict(port=port) if launcher == 'slurm' else {}))
        cfg = Config(dict(
            launcher=launcher, work_dir=folder, runner_type='ToyRunner', model=dict(type='mmbignas.ToyOfProcesses'),
            default_scope='mmdet', log_level='ERROR', experiment_name=launcher, env_cfg=dict(dist_cfg=group)))
        runner = build_runner(cfg)
        seen = [None, None]
        torch_dist.all_gather_object(seen, (runner.rank, runner.world_size, os.environ['LOCAL_RANK']))
        results[launcher] = dict(seen=seen, backend=torch_dist.get_backend(), wrapper=type(runner.model).__name__,
                                 address=os.environ['MASTER_ADDR'], written=cfg.env_cfg.dist_cfg.backend)
        if launcher == list(ports)[-1]:
            results['error'] = wait_alone(f'{folder}/ended') if rank == 0 else wait_for(f'{folder}/ended')
        torch_dist.destroy_process_group()
        for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT'):
            del os.environ[name]
    return results


def wait_alone(ended):
    with pytest.raises(RuntimeError) as caught:
        torch_dist.all_reduce(torch.ones(1))
    Path(ended).touch()
    return str(caught.value)


def wait_for(ended):
    """Live on without taking part, for longer than the timeout."""
    for _ in range(600):
        if os.path.exists(ended):
            break
        time.sleep(.1)


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp('launchers')
    (folder / 'scontrol').write_text(SCONTROL)
    (folder / 'scontrol').chmod(0o755)
    ports = {launcher: free_port() for launcher in ('slurm', 'mpi', 'pytorch')}
    found = call(process, [((rank, str(folder), ports), {}) for rank in range(2)])
    assert [code for code, _, _ in found] == [0, 0], found
    return [results for _, results, _ in found]


@pytest.mark.parametrize('launcher', ['slurm', 'mpi', 'pytorch'])
def test_each_launcher_with_gloo(results, launcher):
    for own in results:
        assert own[launcher] == dict(seen=[(0, 2, '0'), (1, 2, '0')], backend='gloo', address='localhost',
                                     wrapper='MMDistributedDataParallel', written='nccl')


def test_timeout_of_the_config(results):
    assert '6000ms' in results[0]['error']


@pytest.mark.parametrize(('launcher', 'names'), [('pytorch', 'RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT'),
                                                 ('slurm', 'SLURM_PROCID'), ('mpi', 'OMPI_COMM_WORLD_RANK')])
def test_processes_that_no_launcher_started(monkeypatch, launcher, names):
    for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=f'--launcher must be none without .*, got {launcher} .{names}.* missing'):
        distribute_on_cpu(Config(dict(launcher=launcher)))


@pytest.mark.parametrize('timeout', ['1800', 0])
def test_timeout_that_is_none(monkeypatch, timeout):
    for name, value in environment('pytorch', 0, '', '1').items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f'env_cfg.dist_cfg.timeout must be a number > 0, or None, got {timeout!r}'):
        distribute_on_cpu(Config(dict(launcher='pytorch', env_cfg=dict(dist_cfg=dict(timeout=timeout)))))


def torchrun(folder, ending):
    """A training in two processes, of which the second one ends before its third iteration.

    What torchrun starts and watches are stand-ins of forked processes, so that these need no time for imports.
    """
    (folder / 'config.py').write_text(CONFIG.format(ending=ending))
    output = python('-m', 'torch.distributed.run', '--nproc-per-node', 2, '--master-port', free_port(),
                    'tests/processes/stand_in.py', 'tools/train.py', folder / 'config.py', '--launcher', 'pytorch',
                    '--work-dir', folder, code=1)
    assert not list(folder.glob('*.pth'))
    return output


def test_a_killed_process_ends_the_job(tmp_path):
    output = torchrun(tmp_path, 'kill')
    assert 'Signal 9 (SIGKILL)' in output
    assert 'rank      : 1 (local_rank: 1)' in output


def test_an_error_in_one_process_ends_the_job(tmp_path):
    output = torchrun(tmp_path, 'config error')
    assert 'error in rank 1: iteration 2 is not allowed' in output
    assert 'rank      : 1 (local_rank: 1)' in output
    assert 'ConfigError: iteration 2 is not allowed' in output.split('Root Cause')[1]
