"""The processes of a run: how they are started, what they share, and how each works alone for a while."""
from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.distributed as torch_dist
from mmengine.config import Config
from mmengine.dist import (
    all_gather_object,
    all_reduce,
    all_reduce_params,
    broadcast,
    get_world_size,
    init_dist,
    is_distributed,
)
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from mmengine.utils.dl_utils import set_multi_processing
from torch import nn
from torch.utils.data import DataLoader

from mmbignas.errors import ConfigError
from mmbignas.utils.rules import must_be, number

# Where each launcher leaves the number of a process on its machine, from which MMEngine takes the number of its GPU.
LOCAL_RANKS = dict(pytorch='LOCAL_RANK', slurm='SLURM_LOCALID', mpi='OMPI_COMM_WORLD_LOCAL_RANK')
REQUIRED_VARIABLES = dict(pytorch=('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'),
                          slurm=('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST'),
                          mpi=('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'MASTER_ADDR'))
STARTED_BY = dict(pytorch='torchrun', slurm='srun', mpi='mpirun')


def build_runner(cfg: Config) -> Runner:
    """Build the Runner, on a machine without CUDA too.

    Args:
        cfg: A complete config. Without CUDA a distributed one gets a model wrapper that fits.

    Raises:
        ConfigError: There is no model, or no CUDA, and the processes were not started by the launcher.
    """
    if cfg.get('model') is None:
        raise must_be('model', 'a dict', None)
    if cfg.launcher != 'none' and not torch.cuda.is_available():
        distribute_on_cpu(cfg)
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def distribute_on_cpu(cfg: Config) -> None:
    """Start the process group with gloo, and ask for no GPU.

    MMEngine would give each process of a distributed run a GPU. What the config says about the group besides its back
    end (``env_cfg.dist_cfg``, such as ``timeout`` in seconds) holds here too.

    Args:
        cfg: the config of a run whose ``launcher`` is ``pytorch``, ``slurm`` or ``mpi``. It gets a model wrapper that
            fits, where it has none.

    Raises:
        ConfigError: the processes were not started by the launcher, or ``env_cfg.dist_cfg.timeout`` is no time.
    """
    if not is_distributed():
        _start_group(cfg.launcher, cfg.get('env_cfg') or {})
    if cfg.get('model_wrapper_cfg') is None:
        # What Runner would take, but for the devices.
        cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', broadcast_buffers=False,
                                     find_unused_parameters=cfg.get('find_unused_parameters', False))
    cfg.model_wrapper_cfg.setdefault('device_ids', None)


def check_same_length(dataloader: DataLoader) -> None:
    """Make sure that an epoch has the same number of batches in every process; all of them have to call this.

    Otherwise those with more batches would wait forever for the gradients of the others.

    Raises:
        ConfigError: in all processes, when the numbers differ.
    """
    if get_world_size() == 1:
        return
    lengths = all_gather_object(len(dataloader))
    if len(set(lengths)) > 1:
        sampler, dataset = getattr(dataloader.batch_sampler, 'sampler', None), cast(Sized, dataloader.dataset)
        raise ConfigError(f'train_dataloader: an epoch must have as many batches in each process, got '
                          f'{", ".join(map(str, lengths))} ({type(sampler).__name__}, {len(dataset)} images here); '
                          "give all of them the same data and sampler=dict(type='DefaultSampler')")


def _start_group(launcher: str, env_cfg: Any) -> None:
    missing = [name for name in REQUIRED_VARIABLES[launcher] if name not in os.environ]
    if missing:
        raise ConfigError(f'--launcher must be none without {STARTED_BY[launcher]}, got {launcher} '
                          f'({", ".join(missing)} missing in the environment)')
    settings = {**(env_cfg.get('dist_cfg') or {}), 'backend': 'gloo'}
    number(above=0).or_none().check(settings.get('timeout'), 'env_cfg.dist_cfg.timeout')
    # As Runner does before it starts a group; without it, init_dist decides on a start method of its own.
    set_multi_processing(**(env_cfg.get('mp_cfg') or {}), distributed=True)
    name = LOCAL_RANKS[launcher]
    local_rank = os.environ.get(name, '0')
    os.environ[name] = '-1'  # torch.cuda.set_device, which MMEngine calls with it, does nothing below 0
    try:
        init_dist(launcher, **settings)
    finally:
        os.environ[name] = os.environ['LOCAL_RANK'] = local_rank


class Alone:
    """Lets each process of a distributed run be a world of its own for a while.

    Then samplers give a process the whole data set, metrics are its own, and nothing waits for the others. It is made
    in all processes together; in a run of one process it does nothing.
    """

    def __init__(self) -> None:
        self._group = torch_dist.new_subgroups(group_size=1)[0] if is_distributed() else None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Be alone while it is open."""
        if self._group is None:
            yield
            return
        world = torch_dist.group.WORLD
        torch_dist.group.WORLD = self._group
        try:
            yield
        finally:
            torch_dist.group.WORLD = world


@contextmanager
def buffers_of_the_first(model: nn.Module) -> Iterator[None]:
    """Let all processes have the first one's statistics while it is open; in a training, each has its own."""
    if get_world_size() == 1:
        yield
        return
    own = [buffer.detach().clone() for buffer in model.buffers()]
    for buffer in model.buffers():
        broadcast(buffer)
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(model.buffers(), own):
                buffer.copy_(value)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients over all processes; with one process, do nothing.

    A parameter without a gradient in every process keeps none, so that the optimizer leaves it alone; where only some
    processes lack it, theirs counts as zero.

    Args:
        parameters: the same parameters in the same order in every process.
    """
    if get_world_size() == 1:
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        return
    present = torch.tensor([float(parameter.grad is not None) for parameter in trained], device=trained[0].device)
    all_reduce(present, 'max')
    gradients = []
    for parameter, anywhere in zip(trained, present.tolist()):
        if anywhere:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
    all_reduce_params(gradients, op='mean')
