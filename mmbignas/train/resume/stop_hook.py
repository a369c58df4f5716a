"""An orderly end on SIGTERM."""
from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import all_reduce, barrier, get_world_size, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import IterBasedTrainLoop

from mmbignas.registry import HOOKS
from mmbignas.train.resume.checkpoint_files import BACKEND, STOPPED, write_last
from mmbignas.utils.rules import list_of, one_of


@HOOKS.register_module()
class StopHook(Hook):
    """Ends a training at the end of the iteration when a signal says so, sent by ``kill`` or a scheduler.

    It saves a checkpoint, ``stopped.pth``, and ends with exit code 128 plus the signal's number, which is 143 for
    SIGTERM. ``resume=True`` continues from there. It is enough that one of several processes gets the signal.
    Accumulated gradients are not part of a checkpoint, so they are brought to their optimizer step first. A second
    signal ends the process at once.

    MMEngine's ``EpochBasedTrainLoop`` cannot resume within an epoch. A run of it saves nothing here and continues from
    its last checkpoint. ``tools/train.py`` has this hook in any case.

    Args:
        signals: names of the signals.

    Raises:
        ConfigError: for a name that is not one of a signal which can be caught.
    """

    priority = 'LOWEST'

    def __init__(self, signals: Sequence[str] = ('SIGTERM', )) -> None:
        known = {own.name for own in signal.valid_signals() if isinstance(own, signal.Signals)}
        known -= {'SIGKILL', 'SIGSTOP'}
        list_of(one_of(known), f'a list of {", ".join(sorted(known))}', least=1).check(signals, 'StopHook.signals')
        self.signals = [signal.Signals[name] for name in signals]
        self._received = 0
        self._before: dict[signal.Signals, Any] = {}

    def before_train(self, runner: Any) -> None:
        """Listen to the signals."""
        if threading.current_thread() is not threading.main_thread():
            runner.logger.warning('StopHook: only the main thread of a process can listen to signals, so none is '
                                  'noticed in this training')
            return
        self._before = {own: signal.signal(own, self._receive) for own in self.signals}

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """End the process, if it was told to, after all other hooks.

        Raises:
            SystemExit: then.
        """
        received = self._received
        if get_world_size() > 1:
            flag = torch.tensor([received], device=get_device())
            all_reduce(flag, 'max')
            received = int(flag)
        if not received or not runner.optim_wrapper.should_update():
            return
        name, loop = signal.Signals(received).name, runner.train_loop
        if isinstance(loop, IterBasedTrainLoop) or getattr(loop, 'resumes_within_epoch', False):
            what = f'{self._save(runner)} is saved, and resume=True continues from there'
        else:
            what = (f'{type(loop).__name__} cannot resume within an epoch, so resume=True continues from the last '
                    'checkpoint')
        runner.logger.info(f'{name}: the training ends after iteration {runner.iter + 1}; {what}')
        self.after_train(runner)
        barrier()  # whoever started the processes may end all when one of them ends
        raise SystemExit(128 + received)

    def after_train(self, runner: Any) -> None:
        """Stop listening."""
        for own, handler in self._before.items():
            signal.signal(own, handler)
        self._before = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        signal.signal(number, signal.SIG_DFL)

    def _save(self, runner: Any) -> str:
        saving = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
        folder, backend_args = runner.work_dir, dict(backend=BACKEND)
        if saving is not None:
            folder, backend_args = saving.out_dir, saving.backend_args or backend_args
        runner.save_checkpoint(folder, STOPPED, by_epoch=False, backend_args=backend_args)
        path = f'{folder}/{STOPPED}'
        if is_main_process():
            write_last(runner.work_dir, path)
        return path
