"""What the command-line tools share: their common options and the way from a config to a Runner."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS, init_default_scope
from mmengine.runner import Runner

from mmbignas.dependencies import require_mmpretrain
from mmbignas.errors import ConfigError, DependencyError

__all__ = ['add_common_arguments', 'build_runner', 'existing_checkpoint', 'load_config', 'run_tool', 'use_scope']


def run_tool(main: Callable[[], None]) -> None:
    """Run a tool; end it with one line and exit code 2 for an error that its user can mend.

    Args:
        main: The tool. Every exception but :class:`ConfigError` and :class:`DependencyError` passes through.
    """
    try:
        main()
    except (ConfigError, DependencyError) as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(2)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that training and testing have in common.

    Args:
        parser: The parser of the tool. ``config`` becomes its first positional argument.
    """
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder for logs and results (default: the config, then work_dirs/NAME)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        metavar='KEY=VALUE',
        help='replace settings of the config, e.g. a.b=1 list=[1,2] "nested=[(1,2)]"',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how the processes of a distributed run are started',
    )
    # torch.distributed.launch gives the rank this way, torchrun by the environment variable.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def load_config(args: argparse.Namespace) -> Config:
    """Read the config file and apply the common options.

    Args:
        args: The parsed options of :func:`add_common_arguments`.

    Returns:
        The config, with ``launcher`` and ``work_dir`` filled in.

    Raises:
        ConfigError: There is no such file.
        DependencyError: The config uses MMPretrain, which cannot be used here.
    """
    if not Path(args.config).is_file():
        raise ConfigError(f'config file not found: {args.config}')
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', Path(args.config).stem))
    if cfg.get('default_scope') == 'mmpretrain' or 'mmpretrain.' in repr(cfg.to_dict()):
        require_mmpretrain(f'the config {args.config}')
    return cfg


def use_scope(cfg: Config) -> None:
    """Let types without a scope be those of the config's ``default_scope``, as a Runner does.

    Args:
        cfg: The config.
    """
    init_default_scope(cfg.get('default_scope') or 'mmengine')


def existing_checkpoint(path: str) -> str:
    """Return the path of a checkpoint unchanged.

    Args:
        path: A file, or an address that MMEngine knows to load (``https://``, ``torchvision://``, ...).

    Raises:
        ConfigError: It names a file that does not exist.
    """
    if '://' not in path and not Path(path).is_file():
        raise ConfigError(f'checkpoint not found: {path}')
    return path


def build_runner(cfg: Config) -> Runner:
    """Build the Runner, on a machine without CUDA too.

    Args:
        cfg: A complete config. Without CUDA a distributed one gets a model wrapper that fits.

    Raises:
        ConfigError: The launcher needs CUDA and there is none.
    """
    if cfg.launcher != 'none' and not torch.cuda.is_available():
        _distribute_on_cpu(cfg)
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def _distribute_on_cpu(cfg: Config) -> None:
    """Start the gloo process group and ask for no device: MMEngine assigns GPUs in every distributed run."""
    if cfg.launcher != 'pytorch':
        raise ConfigError(f'--launcher {cfg.launcher} needs CUDA; without it use --launcher pytorch')
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')
    if cfg.get('model_wrapper_cfg') is None:
        # What Runner would take, but for the devices.
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )
    cfg.model_wrapper_cfg.setdefault('device_ids', None)
