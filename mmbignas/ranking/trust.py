"""How far a supernet's ranking can be trusted: some of its subnets are each trained alone, from scratch."""
from __future__ import annotations

import copy
import ctypes
import inspect
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmbignas.analysis.accuracy_sample import EvaluatedSubnet
from mmbignas.data.check_data import check_files
from mmbignas.data.pipeline_size import sized_model_config
from mmbignas.evaluation.ledger import Ledger, line_number, only_run
from mmbignas.evaluation.metrics import json_metrics
from mmbignas.export.plain_config import plain_run_config
from mmbignas.ranking.chosen_subnets import (
    check_metric,
    check_same_model,
    choose_spread,
    find_ledger,
    read_ledger,
)
from mmbignas.ranking.correlation import RankComparison, draw_ranks, require_scipy
from mmbignas.space import IMAGE_SIZE, json_number
from mmbignas.supernet import Supernet, subnet_config
from mmbignas.supernet.build import build_model
from mmbignas.utils.adaptations import exact_metrics
from mmbignas.utils.configs import type_name
from mmbignas.utils.files import file_hash, write_file, write_json
from mmbignas.utils.identity import settings_of
from mmbignas.utils.metric_values import is_number, metric_value
from mmbignas.utils.plain_data import read_data
from mmbignas.utils.rules import integer, must_be, one_of
from mmbignas.utils.units import format_macs, format_params

LENGTHS = dict(EpochBasedTrainLoop='max_epochs', IterBasedTrainLoop='max_iters')
OPTIONS = dict(max_epochs='--epochs', max_iters='--max-iters')
# What parameter schedulers count in epochs or iterations.
TIMES = ('begin', 'end', 'T_max', 'milestones', 'step_size', 'periods', 'total_steps')
CHECKPOINTS_A_RUN = 20  # of a run by iterations; one an epoch otherwise
CONFIG, METRICS, LOG, FINISHED = 'config.py', 'metrics.json', 'train.log', 'trust.jsonl'
# What a Runner takes and the figures of a training do not depend on.
NOT_TRAINED = frozenset((
    'work_dir', 'load_from', 'resume', 'launcher', 'env_cfg', 'log_processor', 'log_level', 'visualizer',
    'experiment_name', 'cfg', 'default_hooks', 'randomness'))
LOG_LINES = 12  # of a training that failed
TRAIN = Path(__file__).parents[1] / '.mim' / 'tools' / 'train.py'
PR_SET_PDEATHSIG = 1  # of Linux' prctl


class TrustCheck:
    """Trains subnets of a supernet alone, and compares the rankings.

    The subnets are spread over the accuracy they have in the supernet: the worst and the best, and from each of as
    many equally large groups in between as are needed, by rank, one that is drawn. Each is trained as an ordinary
    network, by MMEngine's own loop under ``tools/train.py``, from new weights; a shorter training has a shorter
    schedule of the same shape. It is evaluated once, at the end, by ``val_dataloader`` and ``val_evaluator``. A subnet
    with an image size of its own sees images of that size. All trainings have the same seed. Hooks of the config that
    count epochs, such as a change of the pipeline, stay as they are.

    Args:
        cfg: config of the supernet's run.
        ledger: record of the evaluated subnets, ``ledger.jsonl`` of ``SampleAccuracyLoop``, or the folder it lies in.
        count: how many subnets, at least 3.
        epochs: of each training; ``None`` for those of the config.
        max_iters: the same, where the config trains by iterations.
        metric: name of the metric that subnets are compared by; ``None`` for ``test_cfg.metric1``, or the first one in
            the ledger.
        seed: of the choice, the trainings and the intervals.
        log: takes reports of the progress.

    Attributes:
        subnets: those that are trained, ascending by accuracy in the supernet.

    Raises:
        ConfigError: for arguments that are not allowed, a ledger of another supernet or with too few subnets, or a
            config that cannot be trained.
        DependencyError: when scipy is missing.
    """

    def __init__(self, cfg: Config, ledger: str | Path, count: int = 10, epochs: int | None = None,
                 max_iters: int | None = None, metric: str | None = None, seed: int = 0,
                 log: Callable[[str], Any] = print) -> None:
        require_scipy()
        self.cfg, self.seed, self.log = cfg, seed, log
        path = find_ledger(ledger)
        with torch.device('meta'):
            model = build_model(cfg)
        check_same_model(path, cfg, model)
        evaluated = read_ledger(path, model, (cfg.get('test_cfg') or {}).get('image_size'))
        self.metric = check_metric(evaluated, metric or (cfg.get('test_cfg') or {}).get('metric1'), path)
        self.subnets = choose_spread(evaluated, self.metric, count, seed)
        self.configs = self._plain_configs(dict(max_epochs=epochs, max_iters=max_iters))
        first = next(iter(self.configs.values()))
        check_files(first, ('train', 'val'))
        numbers = ' '.join(str(own.number) for own in self.subnets)
        self.identity = {
            'ledger': file_hash(path), 'metric': self.metric, 'seed': str(seed),
            _length_key(first): str(_length(first)), 'choice of subnets': numbers, **settings_of(**{
                part: cfg[part] for part in inspect.signature(Runner).parameters
                if part in cfg and part not in NOT_TRAINED and not part.startswith('test_')})}

    def run(self, out: str | Path) -> RankComparison:
        """Train what is not finished yet, and write the result.

        The folder gets ``subnet<number>/`` for each training, a line of ``trust.jsonl`` when it is finished, and at
        the end ``trust.json`` and ``trust.png``. After an interruption of any kind the next call goes on with the last
        checkpoint.

        Args:
            out: the folder.

        Raises:
            ConfigError: when the folder holds results of something else, or another process works in it.
            RuntimeError: when a training fails.
        """
        out = Path(out)
        ledger = Ledger(out / FINISHED, self.identity, self._is_usable)
        with only_run(ledger.path):
            for index, subnet in enumerate(self.subnets):
                if subnet.number not in ledger.lines():
                    self._announce(index, subnet, ledger)
                    ledger.append(self._train(subnet, out / f'subnet{subnet.number}'))
            finished = ledger.lines()
        alone = [replace(own, metrics=finished[own.number]['metrics']) for own in self.subnets]
        comparison = RankComparison(self.subnets, alone, self.metric, self.seed)
        write_json(out / 'trust.json', dict(comparison.summary(), identity=self.identity))
        draw_ranks(comparison, out / 'trust.png')
        self.log(f'{comparison.report()}\nin {out}: trust.json, trust.png, {FINISHED}')
        return comparison

    def _is_usable(self, line: Mapping[str, Any]) -> bool:
        """Whether a line is of a training of one of the subnets, and says how good it is."""
        return any(own.number == line_number(line) and line.get('subnet_settings') == own.settings
                   for own in self.subnets) and is_number(line.get('seconds')) and not math.isnan(
                       metric_value(line['metrics'], self.metric))

    def _plain_configs(self, lengths: Mapping[str, int | None]) -> dict[int, Config]:
        """Number -> config of a subnet's training."""
        model = build_model(self.cfg)
        space, configs = Supernet(model).space, {}
        for own in self.subnets:
            settings = {name: value for name, value in own.settings.items() if name != IMAGE_SIZE}
            model_cfg = subnet_config(self.cfg.model, model, space.canonical(settings), own.image_size)
            size = own.image_size if IMAGE_SIZE in own.settings else None
            plain = plain_run_config(self.cfg, sized_model_config(model_cfg, self.cfg, model, size))
            configs[own.number] = _alone(plain, lengths, self.seed)
            with torch.device('meta'):
                build_model(configs[own.number])
        return configs

    def _announce(self, index: int, subnet: EvaluatedSubnet, ledger: Ledger) -> None:
        seconds = [line['seconds'] for line in ledger.lines().values()]
        left = ''
        if seconds:
            rest = sum(seconds) / len(seconds) * (len(self.subnets) - len(seconds))
            left = f'; about {timedelta(seconds=round(rest))} left'
        self.log(f'{index + 1}/{len(self.subnets)}: subnet {subnet.number}, {format_macs(subnet.macs)}, '
                 f'{format_params(subnet.params)} parameters, {self.metric} {subnet.metric(self.metric):.4f} in the '
                 f'supernet{left}')

    def _train(self, subnet: EvaluatedSubnet, folder: Path) -> dict[str, Any]:
        """Train a subnet in a process of its own; return its line."""
        begin = time.time()
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / METRICS).exists():
            write_file(folder / CONFIG, self.configs[subnet.number].pretty_text.encode())
            command = [sys.executable, str(TRAIN), str(folder / CONFIG), '--work-dir', str(folder), '--resume']
            # What can be imported here can be there.
            environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(path or os.getcwd() for path in sys.path)}
            with open(folder / LOG, 'a', encoding='utf-8') as log:
                code = subprocess.run(command, stdout=log, stderr=log, env=environment).returncode
            if code != 0 or not (folder / METRICS).exists():
                text = (folder / LOG).read_text(encoding='utf-8', errors='replace')
                raise RuntimeError('\n'.join([f'{folder}: the training ended with exit code {code}; the end of {LOG}:',
                                              *text.splitlines()[-LOG_LINES:]]))
        metrics = read_data(folder / METRICS, 'file of metrics')
        line = dict(number=json_number(subnet.number), subnet_settings=subnet.settings, macs=subnet.macs,
                    image_size=list(subnet.image_size), params=subnet.params, metrics=metrics,
                    seconds=time.time() - begin)
        value = metric_value(metrics, self.metric)
        if math.isnan(value):
            raise must_be('--metric', f'a metric that is a number for the subnets that are trained alone, see '
                          f'{folder / METRICS}', self.metric)
        self.log(f'  {self.metric} {value:.4f} alone, in {folder}')
        return line


def _length_key(cfg: Mapping[str, Any]) -> str:
    return LENGTHS[type_name(cfg['train_cfg'])]


def _length(cfg: Mapping[str, Any]) -> int:
    return int(cfg['train_cfg'][_length_key(cfg)])


def _alone(plain: Config, lengths: Mapping[str, int | None], seed: int) -> Config:
    """The config of one training: its length, one evaluation at the end, a checkpoint to go on from."""
    loop = one_of(LENGTHS).check(type_name(plain.get('train_cfg') or {}), 'train_cfg.type')
    for part in ('train_dataloader', 'optim_wrapper', 'val_dataloader', 'val_evaluator'):
        if plain.get(part) is None:
            raise must_be(part, 'in the config, since every subnet is trained and validated with it', None)
    key, before = LENGTHS[loop], _length(plain)
    for name, value in lengths.items():
        if value is not None and name != key:
            raise must_be(OPTIONS[name], f'left out for {loop}, whose option is {OPTIONS[key]}', value)
    integer(1).or_none().check(lengths[key], OPTIONS[key])
    after = lengths[key] or before
    by_epoch = key == 'max_epochs'
    plain.train_cfg = {'type': loop, key: after, 'val_begin': after + 1}  # never: the end is ours
    plain.val_cfg = dict(type='ValLoop', **({'fp16': True} if (plain.get('val_cfg') or {}).get('fp16') else {}))
    plain.test_cfg = plain.test_dataloader = plain.test_evaluator = None
    if plain.get('param_scheduler'):
        plain.param_scheduler = _scaled(plain.param_scheduler, after / before)
    plain.default_hooks = {**(plain.get('default_hooks') or {}), 'checkpoint': dict(
        type='CheckpointHook', by_epoch=by_epoch, interval=1 if by_epoch else max(1, after // CHECKPOINTS_A_RUN),
        max_keep_ckpts=2)}  # MMEngine removes the one before last before it writes the next
    plain.randomness = {**(plain.get('randomness') or {}), 'seed': seed}
    own = dict(type=f'{TrainedAloneHook.__module__}.{TrainedAloneHook.__qualname__}', parent=os.getpid())
    plain.custom_hooks = [*(plain.get('custom_hooks') or ()), own]
    return plain


def _scaled(schedule: Any, ratio: float) -> Any:
    """Parameter schedulers for a training that is shorter or longer by a factor."""
    if isinstance(schedule, (list, tuple)):
        return [_scaled(own, ratio) for own in schedule]
    if 'type' not in schedule:  # of several optimizers
        return {name: _scaled(own, ratio) for name, own in schedule.items()}
    scaled = copy.deepcopy(dict(schedule))
    for name in TIMES:
        value = scaled.get(name)
        if isinstance(value, (list, tuple)):
            scaled[name] = [max(1, round(own * ratio)) for own in value]
        elif isinstance(value, (int, float)) and value != float('inf'):
            scaled[name] = max(int(name != 'begin'), round(value * ratio))
    if 'end' in scaled:
        scaled['end'] = max(scaled['end'], scaled.get('begin', 0) + 1)
    return scaled


class TrainedAloneHook(Hook):
    """What a training of :class:`TrustCheck` does besides training: it ends with the check, and validates once.

    The process is killed when the one that started it is gone, even by ``kill -9``; the next one would train too. At
    the end the metrics are written at full precision, and of the checkpoints the last is kept.

    Args:
        parent: id of the process that runs the check.
    """

    priority = 'LOWEST'

    def __init__(self, parent: int) -> None:
        self.parent = parent

    def before_run(self, runner: Any) -> None:
        """Tie this process to the check."""
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self.parent:  # it was gone before
            raise SystemExit(f'process {self.parent}, which started this training, is gone')

    def after_train(self, runner: Any) -> None:
        """Validate."""
        with exact_metrics(runner.val_evaluator):
            metrics = runner.val_loop.run()
        folder = Path(runner.work_dir)
        last = Path((folder / 'last_checkpoint').read_text()).name
        for path in folder.glob('*.pth'):
            if path.name != last:
                path.unlink()
        write_json(folder / METRICS, json_metrics(metrics))
