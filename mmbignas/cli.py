"""What the command-line tools share: their common options and the way from a config to a model or a Runner."""

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from torch.distributed.elastic.multiprocessing.errors import record

from mmbignas.dependencies import require_mmpretrain
from mmbignas.errors import ConfigError, DependencyError, MismatchError
from mmbignas.utils.configs import typos_explained
from mmbignas.utils.data_errors import data_errors_explained
from mmbignas.utils.files import writing
from mmbignas.utils.rules import in_one_line, must_be


def run_tool(main: Callable[[], None]) -> None:
    """Run a tool; end it with one line and exit code 2 for an error that is meant for its user.

    With several processes, the line names the one that it comes from, and torchrun's last lines have the error of the
    first process that failed. A log that cannot be written, as on a full disk, is one line too, and the tool goes on.

    Args:
        main: The tool. Every exception but :class:`ConfigError`, :class:`DependencyError`, :class:`MismatchError`,
            those that :func:`~mmbignas.utils.configs.typos_explained` makes of wrong keys and types,
            :func:`~mmbignas.utils.data_errors.data_errors_explained` of broken data, and
            :func:`~mmbignas.utils.files.writing` of files that cannot be written, passes through.
    """
    logging.Handler.handleError = _say_once  # type: ignore[method-assign]
    try:
        record(data_errors_explained()(typos_explained()(writing('a file of this run')(main))))()
    except (ConfigError, DependencyError, MismatchError) as error:
        where = f' in rank {os.environ["RANK"]}' if int(os.environ.get('WORLD_SIZE', '1')) > 1 else ''
        print(f'error{where}: {error}', file=sys.stderr)
        sys.exit(2)


_handle_error = logging.Handler.handleError
_silent: set[logging.Handler] = set()


def _say_once(self: logging.Handler, record: logging.LogRecord) -> None:
    """Say that a log cannot be written, once for each; logging would print a traceback for every message."""
    error = sys.exc_info()[1]
    if not isinstance(error, OSError):
        _handle_error(self, record)
    elif self not in _silent:
        _silent.add(self)
        name = getattr(self, 'baseFilename', 'the log')
        print(f'warning: {name}: cannot be written ({error.strerror}); the run goes on without it', file=sys.stderr)


def add_config_arguments(parser: argparse.ArgumentParser, kind: str = 'config file') -> None:
    """Add the options that all tools with a config have in common; ``kind`` says in ``--help`` what config it is."""
    parser.add_argument('config', help=kind)
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE',
                        help='replace settings of the config, e.g. a.b=1 list=[1,2] "nested=[(1,2)]"')


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that training and testing have in common, ``config`` first."""
    add_config_arguments(parser)
    parser.add_argument('--work-dir', help='folder for logs and results (default: the config, then work_dirs/NAME)')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
                        help='how the processes of a distributed run are started')
    # torch.distributed.launch gives the rank this way, torchrun by the environment variable.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def read_config(args: argparse.Namespace) -> Config:
    """Read the config file and apply ``--cfg-options``, both of :func:`add_config_arguments`.

    Raises:
        ConfigError: There is no such file, or it is no config, or empty. What a config raises itself, as the program
            that it is, passes through.
        DependencyError: The config uses MMPretrain, which cannot be used here.
    """
    if not Path(args.config).is_file():
        raise ConfigError(f'config file not found: {args.config}')
    try:
        cfg = Config.fromfile(args.config)
        cfg.merge_from_dict(args.cfg_options)
    except Exception as error:
        if isinstance(error, ImportError) or any(
                frame.name == '<module>' for frame in traceback.extract_tb(error.__traceback__)):
            raise
        raise ConfigError(f'{args.config}: cannot be read as a config ({type(error).__name__}: '
                          f'{in_one_line(error)})') from error
    if not len(cfg) or not isinstance(cfg.get('model', {}), Mapping):
        raise must_be(f'{args.config}: model', 'a dict', cfg.get('model'))
    if cfg.get('default_scope') == 'mmpretrain' or 'mmpretrain.' in repr(cfg.to_dict()):
        require_mmpretrain(f'the config {args.config}')
    return cfg


def load_config(args: argparse.Namespace) -> Config:
    """Read the config of a run, as :func:`read_config` does, and apply the options of :func:`add_common_arguments`.

    ``launcher`` and ``work_dir`` are then filled in.
    """
    cfg = read_config(args)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg.launcher = args.launcher
    cfg.work_dir = default_work_dir(cfg) if args.work_dir is None else args.work_dir
    return cfg


def default_work_dir(cfg: Config) -> str:
    """The folder for results: that of the config, else ``work_dirs`` and the name of the config file."""
    own = cfg.get('work_dir')
    return str(Path('work_dirs', Path(cfg.filename).stem)) if own is None else own


def existing_checkpoint(path: str) -> str:
    """Return the path of a checkpoint, or an address that MMEngine knows to load (``https://``, ...), unchanged.

    Raises:
        ConfigError: It names a file that does not exist.
    """
    if '://' not in path and not Path(path).is_file():
        raise ConfigError(f'checkpoint not found: {path}')
    return path


def image_sizes(args: argparse.Namespace, own: Any) -> Any:
    """The image size or sizes of a tool: those that were typed after ``--image-size``, else the config's.

    Args:
        args: The parsed options, with ``config`` and ``image_size``, heights and widths in turn or ``None``.
        own: What the config says, as ``[height, width]`` or a list of such pairs; ``None`` where it says nothing.

    Returns:
        ``own``, or what was typed, a list of pairs.

    Raises:
        ConfigError: There is none, or a width is missing.
    """
    if args.image_size is not None:
        return image_size_pairs(args.image_size)
    if own is None:
        raise ConfigError(f'--image-size H W is missing, and {args.config} has no test_cfg with an image size')
    return own


def image_size_pairs(pixels: Sequence[int]) -> list[tuple[int, int]]:
    """Image sizes as they are typed after ``--image-size``: height and width in turn.

    Raises:
        ConfigError: A width is missing.
    """
    if len(pixels) % 2:
        raise must_be('--image-size', 'pairs of height and width', list(pixels))
    return list(zip(pixels[::2], pixels[1::2]))
