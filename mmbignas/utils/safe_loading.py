"""Checkpoints are loaded whole or not at all, and what is in them stays data.

torch's weights-only loading runs nothing of a file. But MMEngine loads what it downloads without it. And it acts later
on what it has loaded: it runs the text of ``meta['config']`` as a config when a training is resumed, and that of
``cfg`` where an inferencer is given weights alone; and it deletes the file or folder that the message hub calls the
best checkpoint so far.
"""
from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader, checkpoint

from mmbignas.errors import ConfigError
from mmbignas.utils.safe_globals import loads_weights_only
from mmbignas.utils.sealed_files import DAMAGED, is_as_written

BEST, KEPT = 'best_ckpt', 'keep_ckpt_ids'  # what CheckpointHook keeps in the message hub
_texts: set[bytes] = set()  # hashes of the configs that came in checkpoints


def load_as_data() -> None:
    """Let MMEngine load every checkpoint of this process as this file says; a second call does nothing.

    All of MMEngine's ways to a checkpoint end in ``CheckpointLoader``, and all that run a config's text in
    ``Config.fromstring``; these two are replaced. From a network it loads by ``load_url``, which becomes weights-only
    where torch's loading is (2.6 and later).
    """
    load, parse = CheckpointLoader.load_checkpoint, Config.fromstring
    if getattr(parse, 'refuses_checkpoints', False):
        return

    def load_checkpoint(cls: Any, filename: str, map_location: Any = None, logger: Any = 'current') -> Any:
        try:
            content = load(filename, map_location, logger)
        except (FileNotFoundError, ImportError, ConfigError):
            raise
        except Exception as error:  # of many kinds, depending on the file and the damage
            truncated = '' if isinstance(error, UnpicklingError) else ', it may be truncated'
            raise ConfigError(f'{filename}: cannot be read as a checkpoint{truncated} ({type(error).__name__}: '
                              f'{_reason(error)})') from error
        return disarmed(content, str(filename))

    def fromstring(cfg_str: str, file_format: str) -> Config:
        if _hash(cfg_str) in _texts:
            raise ConfigError('a config that came in a checkpoint is a program of whoever made the file, and is not '
                              'run; give the config as a file of your own')
        return parse(cfg_str, file_format)

    fromstring.refuses_checkpoints = True  # type: ignore[attr-defined]
    if loads_weights_only():
        checkpoint.load_url = partial(checkpoint.load_url, weights_only=True)
    CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)
    CheckpointLoader.load_checkpoint = classmethod(load_checkpoint)
    Config.fromstring = staticmethod(fromstring)


def load_from_local(filename: str, map_location: Any) -> Any:
    """Load a local file as MMEngine does, and compare its digest first, if it has one.

    Args:
        filename: the file; ``~`` is the home folder.
        map_location: of ``torch.load``.

    Raises:
        FileNotFoundError: there is none.
        ConfigError: it is not what was written.
    """
    path = Path(filename).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'{path} can not be found.')
    if is_as_written(path) is False:
        raise ConfigError(f'{filename}: is truncated or damaged ({DAMAGED}); give another checkpoint')
    return torch.load(path, map_location=map_location)


def disarmed(content: Any, filename: str) -> Any:
    """A loaded checkpoint without what MMEngine would act upon; weights are not touched.

    Args:
        content: the checkpoint, which is changed in place.
        filename: where it comes from.

    Returns:
        Any: ``content``. ``meta['config']``, which only MMCV 1 wrote, is gone. Other configs stay, as texts that
        ``Config.fromstring`` refuses. The best checkpoint so far, which MMEngine deletes when there is a better one, is
        a checkpoint beside this one; the numbers of those that are kept are numbers.
    """
    meta = content.get('meta') if isinstance(content, Mapping) else None
    hub = content.get('message_hub') if isinstance(content, Mapping) else None
    info = hub.get('runtime_info') if isinstance(hub, Mapping) else None
    for texts in (meta, info):
        if isinstance(texts, dict):
            _texts.update(_hash(texts[key]) for key in ('cfg', 'config') if isinstance(texts.get(key), str))
    if isinstance(meta, dict):
        meta.pop('config', None)
    if isinstance(info, dict):
        for key in [key for key in info if isinstance(key, str) and key.startswith(BEST)]:
            best = _beside(info[key], filename)
            if best is None:
                del info[key]
            else:
                info[key] = best
        kept = info.get(KEPT, [])
        if not isinstance(kept, list) or not all(type(number) is int for number in kept):
            del info[KEPT]
    return content


def _beside(best: Any, filename: str) -> str | None:
    """Where the best checkpoint is, if it lies beside the one that names it, as it does where both were written."""
    name = best.rpartition('/')[2] if isinstance(best, str) else ''
    if not name.startswith('best_') or not name.endswith('.pth'):
        return None
    folder = filename.rpartition('/')[0]
    path = f'{folder}/{name}' if folder else name
    return path if (path == best if '://' in filename else Path(path).is_file()) else None


def _hash(text: str) -> bytes:
    return hashlib.sha256(str(text).encode('utf-8', 'surrogatepass')).digest()


def _reason(error: Exception) -> str:
    """What torch says, in one line and without its advice to load everything."""
    text = str(error)
    text = text.partition('WeightsUnpickler error: ')[2] or text
    return ' '.join(text.partition('Check the documentation')[0].partition('Please use `torch')[0].split())[:300]
