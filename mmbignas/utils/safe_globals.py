"""What MMEngine's checkpoints name beside weights, as things that can only make harmless values.

torch's weights-only loader calls what a file names, with the arguments that the file gives, and hands it the state that
the file gives. So a name is as safe as the most that can be made of it, not as what it is for: a real ``numpy.ndarray``
takes any buffer and any dtype, and its state can be set while a tensor shares its memory; a real ``HistoryBuffer``
writes what it is given into its class. The names are therefore bound to the stand-ins of this file:

============================================ ==========================================================================
``numpy.dtype``                              :class:`_Dtype`: booleans, integers and floats of fixed size; no more
``numpy.ndarray``, ``..._reconstruct``       :class:`_Array`, which is filled once, with as many bytes as its shape has
``numpy...scalar``                           one number of such a dtype
``HistoryBuffer``                            a real one, with its two arrays and its length, and nothing else
``getattr``                                  for its four statistics methods, their names, which nobody reads
``bytes``                                    none, as in the content of an empty array
============================================ ==========================================================================
"""
from __future__ import annotations

import re
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import checkpoint

FORKS_LOADER = '_safe_torch_load'  # of mmengine.runner.checkpoint, in onedl-mmengine alone
STATISTICS = ('min', 'max', 'mean', 'current')
NUMBERS = re.compile('b1|[iu][1248]|f(2|4|8|16)')


def allow_mmengine_checkpoints() -> None:
    """Add what MMEngine's checkpoints contain to the globals that ``torch.load(..., weights_only=True)`` accepts.

    Weights-only is the default since torch 2.6. Beside the weights such a checkpoint holds the message hub:
    ``HistoryBuffer`` objects, NumPy arrays and scalars, and the buffers' four statistics methods, pickled as
    ``getattr(HistoryBuffer, 'mean')``. Where torch is older and loads everything by default, nothing is done.

    MMEngine of the OneDL forks allows every ``getattr``, and loads what is refused once more without the check, so that
    a checkpoint made to do harm does it. Here it loads with ``torch.load``, as MMEngine does.
    """
    if not loads_weights_only():
        return
    safe: list[Any] = [(_Buffer, f'{HistoryBuffer.__module__}.{HistoryBuffer.__qualname__}'), (_Array, 'numpy.ndarray'),
                       (_Dtype, 'numpy.dtype'), (_statistics_method, 'builtins.getattr'),
                       (_no_bytes, 'builtins.bytes')]
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):  # as NumPy 1 and NumPy 2 write them
        safe += [(_reconstruct, f'{module}._reconstruct'), (_scalar, f'{module}.scalar')]
    torch.serialization.add_safe_globals(safe)
    if hasattr(checkpoint, FORKS_LOADER):
        setattr(checkpoint, FORKS_LOADER, torch.load)


def loads_weights_only() -> bool:
    """Whether torch loads weights only where nothing else was said."""
    return tuple(int(number) for number in torch.__version__.split('.')[:2]) >= (2, 6)


class _Dtype:
    """Stands in for a ``numpy.dtype`` until an array or a scalar is made of it; it is judged then."""

    __slots__ = ('code', 'order')

    def __init__(self, code: Any, align: Any = False, copy: Any = True) -> None:
        self.code: Any = code
        self.order: Any = '='

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, subarray, names, fields, item size, alignment, flags), the rest not for numbers.
        self.order = state[1] if isinstance(state, tuple) and len(state) > 1 else None

    def numpy(self) -> np.dtype:
        """The dtype that this is."""
        if not isinstance(self.code, str) or not NUMBERS.fullmatch(self.code) or self.order not in ('<', '>', '|', '='):
            raise _refused(f'an array of {self.code!r}', 'arrays of numbers are')
        return np.dtype(self.order + self.code)


class _Array(np.ndarray):
    """An array from a checkpoint, which can be filled once and shares its memory with nothing.

    It computes as any array does. Copies, and what is pickled of it, are of NumPy's own class.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        raise _refused('numpy.ndarray(...)', 'arrays as NumPy pickles them are')

    def __setstate__(self, state: Any) -> None:
        try:
            _, shape, dtype, fortran_order, content = state
            counts = [int(length) for length in shape]
            expected = dtype.numpy().itemsize * int(np.prod(counts, dtype=object))
        except (TypeError, ValueError, AttributeError):
            raise _refused('an array of an unknown form', 'arrays as NumPy pickles them are') from None
        if self.size or min(counts, default=0) < 0 or not isinstance(content, bytes) or len(content) != expected:
            raise _refused('an array whose content does not fit it', 'arrays as NumPy pickles them are')
        own = bytes(bytearray(content))  # NumPy would let arrays write into the bytes that the file's other arrays have
        super().__setstate__((1, tuple(counts), dtype.numpy(), bool(fortran_order), own))  # type: ignore[arg-type]

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f'{name} of an array from a checkpoint cannot be set; copy the array first')

    def __deepcopy__(self, memo: Any) -> Any:
        return np.array(self)

    def __reduce__(self) -> Any:
        return np.asarray(self).__reduce__()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return np.asarray(self).__reduce_ex__(protocol)


class _Buffer(HistoryBuffer):
    """Becomes a ``HistoryBuffer`` when it gets its state."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise _refused('HistoryBuffer(...)', 'buffers as MMEngine saves them are')

    def __setstate__(self, state: Any) -> None:
        try:
            history, counts = (state[name] for name in ('_log_history', '_count_history'))
            length = state['max_length']
        except (TypeError, KeyError, IndexError):
            history = counts = length = None
        # bool is no length; a buffer is a vector, and what counts it is one as long.
        if not (type(length) is int and isinstance(history, _Array) and isinstance(counts, _Array)
                and history.ndim == counts.ndim == 1 and history.shape == counts.shape):
            raise _refused('a HistoryBuffer of an unknown form', 'buffers as MMEngine saves them are')
        self._set_default_statistics()
        self.__dict__.clear()
        self.__dict__.update(max_length=length, _log_history=np.array(history), _count_history=np.array(counts))
        self.__class__ = HistoryBuffer


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    if kind is not _Array:
        raise _refused(f'an array of class {kind!r}', 'arrays of numbers are')
    return np.ndarray.__new__(_Array, (0, ), np.int8, buffer=b'')


def _scalar(dtype: Any, content: Any = None) -> Any:
    kind = dtype.numpy() if isinstance(dtype, _Dtype) else None
    if kind is None or not isinstance(content, bytes) or len(content) != kind.itemsize:
        raise _refused('a NumPy scalar of an unknown form', 'numbers are')
    return np.frombuffer(content, kind)[0]


def _statistics_method(owner: Any, name: Any) -> str:
    """Stands in for ``getattr``; its result goes into the buffer's state, where :class:`_Buffer` leaves it."""
    if owner is not _Buffer or name not in STATISTICS:
        raise _refused(f'attribute {name!r} of {owner!r}', 'the statistics methods of HistoryBuffer are')
    return name


def _no_bytes(*args: Any) -> bytes:
    if args:
        raise _refused('bytes(...)', 'none are, as in an empty array')
    return b''


def _refused(what: str, safe: str) -> UnpicklingError:
    return UnpicklingError(f'the checkpoint asks for {what}, which is not safe to load; {safe}')
