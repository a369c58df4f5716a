"""Running a test function in several processes of one gloo group."""
import importlib
import os
import tempfile
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as torch_dist

from tests.processes import call


def run_processes(function: Callable[..., Any], *args: Any, world_size: int = 2) -> list[Any]:
    """Call ``function(rank, *args)`` in ``world_size`` processes and return their results by rank.

    The function must be at the top of its module; results travel by ``torch.save``.
    """
    with tempfile.TemporaryDirectory() as folder:
        name = function.__module__, function.__name__
        found = call(_in_group, [((rank, world_size, folder, name, args), {}) for rank in range(world_size)])
    for rank, (code, _, error) in enumerate(found):
        assert code == 0, f'exit codes {[own[0] for own in found]}; rank {rank}: {error}'
    return [result for _, result, _ in found]


def _in_group(rank: int, world_size: int, folder: str, name: tuple[str, str], args: tuple) -> Any:
    torch.set_num_threads(1)
    function = getattr(importlib.import_module(name[0]), name[1])
    torch_dist.init_process_group('gloo', f'file://{os.path.join(folder, "group")}', rank=rank, world_size=world_size)
    result = function(rank, *args)
    torch_dist.destroy_process_group()
    return result
