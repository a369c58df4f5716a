"""Let torch's weights-only loader, the default since torch 2.6, read the checkpoints that MMEngine writes.

Beside the weights such a checkpoint holds the message hub: ``HistoryBuffer`` objects, NumPy arrays and scalars, and the
buffers' four statistics methods, pickled as ``getattr(HistoryBuffer, 'mean')``. Exactly these are made known to it.

MMEngine of the OneDL forks allows every ``getattr``, and loads what is refused once more without the check, so that a
checkpoint made to do harm does it. Here it loads as MMEngine does.
"""

from collections.abc import Callable
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import checkpoint

FORKS_LOADER = '_safe_torch_load'  # of mmengine.runner.checkpoint, in onedl-mmengine alone
STATISTICS = ('min', 'max', 'mean', 'current')


def allow_mmengine_checkpoints() -> None:
    """Add what MMEngine's checkpoints contain to the globals that ``torch.load(..., weights_only=True)`` accepts.

    MMEngine of the OneDL forks then loads with ``torch.load`` too, which accepts nothing else. Does nothing where torch
    is older than 2.6 and loads everything by default.
    """
    if tuple(int(number) for number in torch.__version__.split('.')[:2]) < (2, 6):
        return
    reconstruct, scalar = np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]
    safe: list[Any] = [HistoryBuffer, np.ndarray, np.dtype, (statistics_method, 'builtins.getattr')]
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):  # as NumPy 1 and NumPy 2 write them
        safe += [(reconstruct, f'{module}._reconstruct'), (scalar, f'{module}.scalar')]
    safe += {type(np.dtype(code)) for code in '?bhilqBHILQefd'}  # numbers; never object, which can hold anything
    torch.serialization.add_safe_globals(safe)
    if hasattr(checkpoint, FORKS_LOADER):
        setattr(checkpoint, FORKS_LOADER, torch.load)


def statistics_method(owner: type, name: str) -> Callable[..., Any]:
    """Stand in for ``getattr`` in a checkpoint, for the statistics methods of ``HistoryBuffer`` alone.

    Args:
        owner: The first argument of the ``getattr`` call in the checkpoint.
        name: Its second argument.

    Raises:
        UnpicklingError: Anything else is asked for, as a checkpoint made to do harm would.
    """
    if owner is not HistoryBuffer or name not in STATISTICS:
        raise UnpicklingError(f'the checkpoint asks for attribute {name!r} of {owner!r}, which is not safe to load')
    return getattr(HistoryBuffer, name)
