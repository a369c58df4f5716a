"""Checkpoints that survive whatever ends a run."""
from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook, Hook

from mmbignas.errors import ConfigError
from mmbignas.registry import HOOKS
from mmbignas.train.resume.checkpoint_files import BACKEND, STOPPED, newest_checkpoint, what_is_broken
from mmbignas.utils.models import unwrapped


@HOOKS.register_module()
class ResumeHook(Hook):
    """Lets MMEngine's ``CheckpointHook`` write whole files, and a run resume from the newest one that can be read.

    A checkpoint gets its name when it is complete, so a run that is killed while it saves leaves the one before it
    alone. ``resume=True`` (without ``load_from``) passes over checkpoints that are damaged or missing, and says so.
    ``tools/train.py`` has this hook in any case.
    """

    def before_run(self, runner: Any) -> None:
        """Set both up; MMEngine loads the checkpoint right after this.

        Raises:
            ConfigError: in a run that is to be resumed, where none of its checkpoints can be read.
        """
        saving = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
        patterns = [STOPPED]
        if saving is not None:
            patterns.append(saving.filename_tmpl.replace('{}', '*'))
            self._write_whole_files(runner, saving)
        if not runner._resume:
            return
        if runner._load_from is None:
            runner._load_from = self._newest(runner, patterns)
        elif '://' not in runner._load_from:
            problem = what_is_broken(runner._load_from)
            if problem is not None:
                raise ConfigError(f'load_from must be a whole checkpoint with resume: {runner._load_from} {problem}')

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another architecture, or of a run with a distillation that is no longer there.

        Raises:
            ConfigError: in a run that is resumed, for weights that do not fit, which MMEngine would leave out, and for
                what a hook that is no longer there saved in it (``checkpoint_keys`` of our hooks' classes).
        """
        if not runner._resume:
            return
        model = unwrapped(runner.model)
        ours, theirs = ({name: tuple(value.shape) for name, value in state.items() if isinstance(value, torch.Tensor)}
                        for state in (model.state_dict(), checkpoint['state_dict']))
        wrong = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
        if wrong:
            raise ConfigError('resume: the checkpoint must be of the same architecture as the model; '
                              f'{len(wrong)} weights do not fit, the first is {wrong[0]} '
                              f'({theirs.get(wrong[0], "not there")} instead of {ours.get(wrong[0], "none")})')
        for kind in HOOKS.module_dict.values():
            for key in getattr(kind, 'checkpoint_keys', ()):
                if checkpoint.get(key) and not any(isinstance(hook, kind) for hook in runner.hooks):
                    raise ConfigError(f'custom_hooks: the checkpoint to resume from has {key} of a {kind.__name__}; '
                                      f'custom_hooks must have that {kind.__name__}, or resume must be False')

    def _write_whole_files(self, runner: Any, saving: CheckpointHook) -> None:
        remote = '://' in str(saving.out_dir or runner.work_dir)
        if saving.backend_args is None and saving.file_client_args is None and not remote:
            saving.backend_args = dict(backend=BACKEND)
        if saving.max_keep_ckpts == 1:
            runner.logger.warning('default_hooks.checkpoint.max_keep_ckpts: with 1, the only checkpoint is deleted '
                                  'before the next one is written, and a run that ends in between is lost; 2 or more '
                                  'always leave one')

    def _newest(self, runner: Any, patterns: list[str]) -> str | None:
        """The choice of rank 0, for all; an error of its too, so that no other waits for it."""
        shared: list[Any] = [None, None]
        if is_main_process():
            try:
                shared[0] = newest_checkpoint(runner.work_dir, patterns, runner.logger.warning)
            except ConfigError as error:
                shared[1] = str(error)
        broadcast_object_list(shared)
        if shared[1] is not None:
            raise ConfigError(shared[1])
        return shared[0]
