"""How far a supernet's ranking can be trusted: some of its subnets, each trained alone from scratch."""
from __future__ import annotations

import copy
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from mmbignas.analysis.accuracy_sample import EvaluatedSubnet
from mmbignas.data.check_data import check_files
from mmbignas.data.pipeline_size import sized_model_config
from mmbignas.errors import ConfigError
from mmbignas.evaluation.identity import config_hash
from mmbignas.evaluation.ledger import Ledger, only_run
from mmbignas.evaluation.metrics import exact
from mmbignas.evaluation.subnet_loop import json_metrics
from mmbignas.export.plain_config import plain_run_config
from mmbignas.ranking.chosen_subnets import check_metric, check_space, choose_spread, find_ledger, read_ledger
from mmbignas.ranking.correlation import RankComparison, draw_ranks, require_scipy
from mmbignas.space import IMAGE_SIZE, json_number
from mmbignas.supernet import Supernet, file_hash, subnet_config
from mmbignas.supernet.build import build_model
from mmbignas.utils.checks import type_name
from mmbignas.utils.distributed import build_runner
from mmbignas.utils.files import replacing
from mmbignas.utils.units import format_macs, format_params

LENGTHS = dict(EpochBasedTrainLoop='max_epochs', IterBasedTrainLoop='max_iters')
OPTIONS = dict(max_epochs='--epochs', max_iters='--max-iters')
# What parameter schedulers count in epochs or iterations.
TIMES = ('begin', 'end', 'T_max', 'milestones', 'step_size', 'periods', 'total_steps')
CHECKPOINTS_A_RUN = 20  # of a run by iterations; one an epoch otherwise
CONFIG, METRICS, LOG, FINISHED = 'config.py', 'metrics.json', 'train.log', 'trust.jsonl'
LOG_LINES = 12  # of a training that failed


class TrustCheck:
    """Trains subnets of a supernet alone, and compares the rankings.

    The subnets are spread over the accuracy they have in the supernet: the worst and the best, and from each of as
    many equally large groups in between as are needed, by rank, one that is drawn. Each is trained as an ordinary
    network, by MMEngine's own loop in a process of its own, from new weights; a shorter training has a shorter
    schedule of the same shape. It is evaluated once, at the end, by ``val_dataloader`` and ``val_evaluator``. A subnet
    with an image size of its own sees images of that size. All trainings have the same seed. Hooks of the config that
    count epochs, such as a change of the pipeline, stay as they are.

    Args:
        cfg: config of the supernet's run.
        ledger: record of the evaluated subnets, ``ledger.jsonl`` of ``SampleAccuracyLoop``, or the folder it lies in.
        count: how many subnets, at least 3.
        epochs: of each training; ``None`` for those of the config.
        max_iters: likewise, where the config trains by iterations.
        metric: name of the metric that subnets are compared by; ``None`` for ``test_cfg.metric1``, or the first one in
            the ledger.
        seed: of the choice, the trainings and the intervals.
        log: is told what is going on.

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
        evaluated = read_ledger(path)
        check_space(path, cfg)
        self.metric = check_metric(evaluated, metric or (cfg.get('test_cfg') or {}).get('metric1'), path)
        self.subnets = choose_spread(evaluated, self.metric, count, seed)
        self.configs = self._plain_configs(dict(max_epochs=epochs, max_iters=max_iters))
        first = next(iter(self.configs.values()))
        check_files(first, ('train', 'val'))
        numbers = ' '.join(str(own.number) for own in self.subnets)
        self.identity = {
            'config': config_hash(cfg.to_dict()), 'ledger': file_hash(path), 'metric': self.metric, 'seed': str(seed),
            _length_key(first): str(_length(first)), 'choice of subnets': numbers}

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
        ledger = Ledger(out / FINISHED, self.identity)
        with only_run(ledger.path):
            for index, subnet in enumerate(self.subnets):
                if subnet.number not in ledger.lines():
                    self._announce(index, subnet, ledger)
                    ledger.append(self._train(subnet, out / f'subnet{subnet.number}'))
            finished = ledger.lines()
        alone = [EvaluatedSubnet.from_line(finished[own.number]) for own in self.subnets]
        comparison = RankComparison(self.subnets, alone, self.metric, self.seed)
        with replacing(out / 'trust.json') as aside:
            aside.write_text(json.dumps(dict(comparison.summary(), identity=self.identity), indent=2, allow_nan=False)
                             + '\n', encoding='utf-8')
        draw_ranks(comparison, out / 'trust.png')
        self.log(f'{comparison.report()}\nin {out}: trust.json, trust.png, {FINISHED}')
        return comparison

    def _plain_configs(self, lengths: Mapping[str, int | None]) -> dict[int, Config]:
        """Number -> config of a subnet's training."""
        model = build_model(self.cfg)
        space, configs = Supernet(model).space, {}
        for own in self.subnets:
            settings = {name: value for name, value in own.settings.items() if name != IMAGE_SIZE}
            model_cfg = subnet_config(self.cfg.model, model, space.canonical(settings))
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
            cfg = self.configs[subnet.number]
            cfg.work_dir = str(folder)
            with replacing(folder / CONFIG) as aside:
                aside.write_text(cfg.pretty_text, encoding='utf-8')
            process = multiprocessing.get_context('spawn').Process(target=train_alone, args=(str(folder),))
            process.start()
            try:
                process.join()
            finally:
                process.kill()
            if process.exitcode != 0 or not (folder / METRICS).exists():
                log = folder / LOG
                text = log.read_text(encoding='utf-8', errors='replace') if log.exists() else ''
                raise RuntimeError('\n'.join([f'{folder}: the training ended with exit code {process.exitcode}; the '
                                              f'end of {log}:', *text.splitlines()[-LOG_LINES:]]))
        metrics = json.loads((folder / METRICS).read_text(encoding='utf-8'))
        line = dict(number=json_number(subnet.number), subnet_settings=subnet.settings, macs=subnet.macs,
                    image_size=list(subnet.image_size), params=subnet.params, metrics=metrics,
                    seconds=time.time() - begin)
        self.log(f'  {self.metric} {EvaluatedSubnet.from_line(line).metric(self.metric):.4f} alone, in {folder}')
        return line


def _length_key(cfg: Mapping[str, Any]) -> str:
    return LENGTHS[type_name(cfg['train_cfg'])]


def _length(cfg: Mapping[str, Any]) -> int:
    return int(cfg['train_cfg'][_length_key(cfg)])


def _alone(plain: Config, lengths: Mapping[str, int | None], seed: int) -> Config:
    """The config of one training: its length, one evaluation at the end, a checkpoint to go on from."""
    loop = type_name(plain.get('train_cfg') or {})
    if loop not in LENGTHS:
        raise ConfigError(f'train_cfg.type: {loop or None!r} is not allowed; allowed: {", ".join(LENGTHS)}, and those '
                          'for supernets')
    for part in ('train_dataloader', 'optim_wrapper', 'val_dataloader', 'val_evaluator'):
        if plain.get(part) is None:
            raise ConfigError(f'{part}: is missing in the config; every subnet is trained and validated with it')
    key, before = _length_key(plain), _length(plain)
    for name, value in lengths.items():
        if value is not None and (name != key or isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ConfigError(f'{OPTIONS[name]}: {value!r} is not allowed; allowed: {OPTIONS[key]} with integers from '
                              f'1, since the config trains with {loop}')
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
    plain.launcher, plain.resume = 'none', True
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


def train_alone(folder: str) -> None:
    """Train and validate one network; the work of a process that :class:`TrustCheck` starts.

    Args:
        folder: has the config; gets the log, the checkpoints and at the end the metrics.
    """
    _end_with_parent()
    with open(Path(folder, LOG), 'a', encoding='utf-8') as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    last_checkpoint(folder)
    runner = build_runner(Config.fromfile(str(Path(folder, CONFIG))))
    runner.train()
    evaluator, loop = runner.val_evaluator, runner.val_loop
    with exact(evaluator):
        metrics = loop.run()
    last = last_checkpoint(folder)
    for path in Path(folder).glob('*.pth'):
        if path != last:
            path.unlink()
    with replacing(Path(folder, METRICS)) as aside, aside.open('w', encoding='utf-8') as file:
        json.dump(json_metrics(metrics), file, default=str, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())


def _end_with_parent() -> None:
    """End this process when the one that started it has ended, even by ``kill -9``: the next one would train too."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        assert parent is not None
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def last_checkpoint(folder: str | Path) -> Path | None:
    """The last checkpoint that is complete, which MMEngine is then told to go on from.

    Args:
        folder: of a training. Its ``last_checkpoint`` names a file; where it does not, since the folder was moved or
            the process killed while it wrote the name, it is mended.
    """
    named = Path(folder, 'last_checkpoint')
    if not named.is_file():
        return None
    path: Path | None = Path(folder, Path(named.read_text()).name)
    if path is not None and not path.is_file():  # of two checkpoints the older one is complete
        path = min(Path(folder).glob('*.pth'), key=os.path.getmtime, default=None)
    if path is None:
        named.unlink()
        return None
    with replacing(named) as aside:
        aside.write_text(str(path.resolve()))
    return path
