"""Checkpoints that survive whatever ends a run."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import BaseLoop

from mmbignas.errors import ConfigError
from mmbignas.registry import HOOKS
from mmbignas.train.resume.checkpoint_files import BACKEND, STOPPED, newest_checkpoint, what_is_broken
from mmbignas.train.resume.differences import what_begins_anew, what_differs, what_is_missing
from mmbignas.utils.locks import take
from mmbignas.utils.models import unwrapped

LOCK = '.training.lock'


@HOOKS.register_module()
class ResumeHook(Hook):
    """Lets MMEngine's ``CheckpointHook`` write whole files, and a run resume from the newest one that can be read.

    A checkpoint gets its name when it is complete, so a run that is killed while it saves leaves the one before it
    alone. It has a digest, which is compared whenever it is loaded. ``resume=True`` (without ``load_from``) passes over
    checkpoints that are damaged or missing, and says so; and it says what the config has otherwise than the run that is
    resumed. Only one training at a time can be in a folder. ``tools/train.py`` has this hook in any case.
    """

    priority = 'VERY_HIGH'  # other hooks rely on what is checked here

    def __init__(self) -> None:
        self._lock: Any = None

    def before_run(self, runner: Any) -> None:
        """Set all this up; MMEngine loads the checkpoint right after this.

        Raises:
            ConfigError: where another training is in the folder; in a run that is to be resumed, where none of its
                checkpoints can be read.
        """
        if isinstance(runner._train_loop, BaseLoop):
            self._decided_by_first(lambda: self._lock_folder(runner))
        saving = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
        patterns = [STOPPED]
        if saving is not None:
            patterns.append(saving.filename_tmpl.replace('{}', '*'))
            self._write_whole_files(runner, saving)
        if not runner._resume:
            return
        if runner._load_from is None:
            runner._load_from = self._decided_by_first(
                lambda: newest_checkpoint(runner.work_dir, patterns, runner.logger.warning))
        elif '://' not in runner._load_from:
            problem = self._decided_by_first(lambda: what_is_broken(runner._load_from))
            if problem is not None:
                raise ConfigError(f'load_from must be a whole checkpoint with resume: {runner._load_from} {problem}')

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Refuse what no training can be resumed from, and say what the checkpoint has otherwise than the config.

        Raises:
            ConfigError: in a run that is resumed, for a checkpoint that lacks what MMEngine needs; for weights that do
                not fit, which MMEngine would leave out; and for what a hook that is no longer there saved in it
                (``checkpoint_keys`` of our hooks' classes).
        """
        if not runner._resume:
            return
        missing = what_is_missing(checkpoint)
        if missing:
            raise ConfigError(f'resume: {runner._load_from} must be a checkpoint of a training, it has no '
                              f'{", ".join(missing)}; without resume, load_from begins a new training with its weights')
        _check_architecture(unwrapped(runner.model).state_dict(), checkpoint['state_dict'])
        for kind in HOOKS.module_dict.values():
            for key in getattr(kind, 'checkpoint_keys', ()):
                if checkpoint.get(key) and not any(isinstance(hook, kind) for hook in runner.hooks):
                    raise ConfigError(f'custom_hooks: the checkpoint to resume from has {key} of a {kind.__name__}; '
                                      f'custom_hooks must have that {kind.__name__}, or resume must be False')
        checkpoint['message_hub']['runtime_info'].pop('cfg', None)  # the next checkpoints are of this run's config
        anew = what_begins_anew(runner, checkpoint)
        if anew:
            runner.logger.warning(f'resume: {runner._load_from} has no {" and no ".join(anew)}, which begin anew')
        differing = what_differs(runner, checkpoint)
        if differing:
            runner.logger.warning(f'resume: {runner._load_from} is of a run with other settings: {differing}')

    def after_run(self, runner: Any) -> None:
        """Let others train in the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _lock_folder(self, runner: Any) -> None:
        path = Path(runner.work_dir, LOCK)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = take(path)
        except OSError as error:
            runner.logger.warning(f'{path}: cannot be locked ({error.strerror}), so nothing keeps a second training '
                                  'out of this folder')
            return
        if self._lock is None:
            raise ConfigError(f'work_dir: another training runs in {runner.work_dir}; wait until it has ended, or give '
                              'another --work-dir')

    def _write_whole_files(self, runner: Any, saving: CheckpointHook) -> None:
        remote = '://' in str(saving.out_dir or runner.work_dir)
        if saving.backend_args is None and saving.file_client_args is None and not remote:
            saving.backend_args = dict(backend=BACKEND)
        if saving.max_keep_ckpts == 1:
            runner.logger.warning('default_hooks.checkpoint.max_keep_ckpts: with 1, the only checkpoint is deleted '
                                  'before the next one is written, and a run that ends in between is lost; 2 or more '
                                  'always leave one')

    def _decided_by_first(self, decide: Callable[[], Any]) -> Any:
        """What rank 0 finds, for all; an error of its too, so that no other waits for it."""
        shared: list[Any] = [None, None]
        if is_main_process():
            try:
                shared[0] = decide()
            except ConfigError as error:
                shared[1] = str(error)
        broadcast_object_list(shared)
        if shared[1] is not None:
            raise ConfigError(shared[1])
        return shared[0]


def _check_architecture(ours: Any, theirs: Any) -> None:
    shapes, found = ({name: tuple(value.shape) for name, value in state.items() if isinstance(value, torch.Tensor)}
                     for state in (ours, theirs))
    wrong = [name for name in {**shapes, **found} if shapes.get(name) != found.get(name)]
    if wrong:
        raise ConfigError('resume: the checkpoint must be of the same architecture as the model; '
                          f'{len(wrong)} weights do not fit, the first is {wrong[0]} '
                          f'({found.get(wrong[0], "not there")} instead of {shapes.get(wrong[0], "none")})')
