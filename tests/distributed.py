"""Running a test function in several processes of one gloo group."""
import multiprocessing
import os
import tempfile
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as torch_dist
import torch.multiprocessing

# The slow imports are done once, in a process from which all others fork.
multiprocessing.set_forkserver_preload(['mmbignas', 'mmdet.utils', 'mmdet.datasets'])


def run_processes(function: Callable[..., Any], *args: Any, world_size: int = 2) -> list[Any]:
    """Call ``function(rank, *args)`` in ``world_size`` processes and return their results by rank.

    The function must be at the top of its module; results travel by ``torch.save``.
    """
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(_process, (world_size, folder, function, args), nprocs=world_size,
                                              start_method='forkserver')
        return [torch.load(os.path.join(folder, f'{rank}.pth'), weights_only=False) for rank in range(world_size)]


def _process(rank: int, world_size: int, folder: str, function: Callable[..., Any], args: tuple) -> None:
    torch.set_num_threads(1)
    torch_dist.init_process_group('gloo', f'file://{folder}/group', rank=rank, world_size=world_size)
    torch.save(function(rank, *args), os.path.join(folder, f'{rank}.pth'))
    torch_dist.destroy_process_group()
