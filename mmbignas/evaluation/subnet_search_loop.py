"""Searching a supernet for the best subnets."""
from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import barrier, broadcast_object_list, is_main_process
from mmengine.runner import BaseLoop

from mmbignas.evaluation.results import Progress
from mmbignas.evaluation.scorer import stage_of
from mmbignas.evaluation.survey import SubnetCosts, SubnetSurvey, SurveyRun
from mmbignas.registry import LOOPS
from mmbignas.space import Subnet
from mmbignas.utils.commands import command
from mmbignas.utils.files import file_hash, writing
from mmbignas.utils.rules import check_options, errors_below, integer, text

PREDICTOR: Mapping[str, int] = {}  # its defaults
WAIT_SECONDS = 1.
RULES = dict(subnet_count=integer(1), seed=integer(0), study_name=text(),
             metric1=text("the name of a metric, such as 'coco/bbox_mAP', to search by"))


@LOOPS.register_module()
class SubnetSearchLoop(BaseLoop):
    """Searches for the best subnets under constraints, with Optuna; for ``test_cfg`` or ``val_cfg``.

    The study is kept in a storage: a file in ``search`` in the work dir, or a database. Whatever is killed, the same
    command continues it. Processes that are started with the same storage, on any number of machines, work on one
    study, and none evaluates the subnets of another; ``optuna-dashboard`` shows it meanwhile. Each process writes the
    results at its end, see :func:`~mmbignas.evaluation.results.write_results`; those of the last one are complete.

    Args:
        runner, dataloader, evaluator: as MMEngine gives them to a loop.
        metric1: name of the metric that makes a subnet good, e.g. ``coco/bbox_mAP``.
        image_size: see :class:`~mmbignas.evaluation.SampleAccuracyLoop`.
        lut_path: latency table, from which latencies are predicted.
        seed: of the search.
        subnet_count: how many subnets to evaluate, all processes and earlier runs together; where several processes ask
            for the last one at the same moment, each may add one.
        constraints: any of ``macs``, ``params`` and ``latency_ms`` (with ``lut_path``) -> the most that is allowed, or
            ``[low, high]``; see :class:`~mmbignas.search.Constraints`. They are checked before anything is evaluated.
        objectives: names of metrics, which are maximised, and of costs (``macs``, ``params``, ``latency_ms``), which
            are minimised; ``None`` for ``metric1`` and ``macs``.
        sampler: one of :data:`~mmbignas.search.SAMPLERS`, or ``dict(type=..., **arguments of Optuna's class)``;
            ``None`` for :data:`~mmbignas.search.DEFAULT_SAMPLER`.
        predictor: ``dict(candidates=100, min_subnets=30)``, or a part of it: once ``min_subnets`` are evaluated, a
            regression chooses among the candidates; ``None`` for none, see :class:`~mmbignas.search.SubnetStudy`.
        storage: a file, or a URL such as ``postgresql://user@host/name``; ``None`` for ``search/study.db``.
        study_name: of the study in its storage.
        stale_after: seconds in which a process of another machine has to be seen to report; else it is considered dead,
            and its subnet is given to others.
        **survey: ``metric2``, ``calib_bn``, ``val_images``, ``baseline_flops``, ``large_flops``,
            ``sample_with_finetune``, ``parallel``, ``predicted_count``, ``fp16``, ``interpolation_type``, see
            :class:`~mmbignas.evaluation.survey.SubnetSurvey`.

    Raises:
        ConfigError: for arguments that are not allowed, constraints that no subnet meets, or a study of another
            supernet, space or data set.
        DependencyError: without Optuna.
    """

    def __init__(self, runner: Any, dataloader: Any, evaluator: Any, metric1: str | None = None,
                 image_size: Any = None, lut_path: str | None = None, seed: int = 0, subnet_count: int = 200,
                 constraints: Mapping[str, Any] | None = None, objectives: Sequence[str] | None = None,
                 sampler: str | Mapping[str, Any] | None = None, predictor: Mapping[str, int] | None = PREDICTOR,
                 storage: str | Path | None = None, study_name: str = 'subnets', stale_after: float = 600.,
                 **survey: Any) -> None:
        from mmbignas.search import DEFAULT_SAMPLER, open_storage

        key = f'{stage_of(runner, dataloader)}_cfg'
        check_options(key, locals(), RULES)
        self.subnet_count, self.storage, self.study_name, self.lut_path = subnet_count, storage, study_name, lut_path
        self.objectives: Sequence[str] = [str(metric1), 'macs'] if objectives is None else objectives
        self._settings: dict[str, Any] = dict(constraints=constraints, predictor=predictor, stale_after=stale_after,
                                              seed=seed, sampler=DEFAULT_SAMPLER if sampler is None else sampler)
        costs = SubnetCosts(runner.model, image_size, lut_path, key, runner.cfg.get('model'))
        from optuna.storages import InMemoryStorage

        with errors_below(key):  # to find mistakes before data are loaded
            limits = self._open_study(costs, InMemoryStorage()).constraints
            if storage is not None and is_main_process():
                open_storage(storage)
        low, high = limits.limits.get('macs', (0, math.inf))
        self.survey = SubnetSurvey(runner, dataloader, evaluator, costs, 'search', metric1=metric1, seed=seed,
                                   flops_range=(int(low) or None, None if high == math.inf else int(high)),
                                   allowed=limits.allow, objectives=self.objectives, **survey)
        self.scorer = self.survey.scorer
        super().__init__(runner, self.scorer.dataloader)
        self.evaluator = self.scorer.evaluator
        self.study: Any = None  # where this process asks for subnets
        self._proposal: Any = None

    def run(self) -> dict[str, float]:
        """Evaluate subnets until there are enough, and write the results.

        Returns:
            dict: how many subnets were evaluated, and what the best of them reach.

        Raises:
            ConfigError: for a study of something else, or when there is no ``metric1`` or ``metric2`` among the
                metrics.
        """
        # Constraints and objectives may be about latencies, which are those of one table.
        with self.survey.running(latency='none' if self.lut_path is None else file_hash(self.lut_path)) as run:
            storage = run.folder / 'study.db' if self.storage is None else self.storage
            with writing(run.folder):
                run.folder.mkdir(parents=True, exist_ok=True)
            self.study = self._proposal = None
            if is_main_process():
                self.study = self._open_study(self.survey.costs, storage, run)
            barrier()
            if self.scorer.parallel == 'subnet' and self.study is None:
                self.study = self._open_study(self.survey.costs, storage, run)
            self._evaluate()
            barrier()
            run.lines = self._finished()
            if is_main_process():
                from mmbignas.search.storage import dashboard_address

                self.runner.logger.info(f'the study has {len(run.lines)} subnets; to look at it: '
                                        f'{command("optuna-dashboard", dashboard_address(storage))}')
        return run.metrics

    def _open_study(self, costs: SubnetCosts, storage: Any, run: SurveyRun | None = None) -> Any:
        from mmbignas.search import SubnetStudy

        name = self.study_name + (f'_{run.version}' if run is not None and run.version else '')
        return SubnetStudy(costs.space, costs, self.objectives, storage, name=name,
                           identity={} if run is None else run.identity, **self._settings)

    def _finished(self) -> list[dict[str, Any]]:
        """What is known of each evaluated subnet, in the order in which they were proposed."""
        lines = [] if self.study is None else self.study.lines()
        return [self.survey.restored(line) for line in lines if self.survey.is_usable(line)]

    def _evaluate(self) -> None:
        self.survey.see(line['metrics'] for line in self._finished())
        progress = Progress(self.subnet_count, len(self._finished()), self.runner.logger.info)
        while (subnet := self._next()) is not None:
            try:
                line = self.survey.score(subnet)
            except Exception:  # after Ctrl-C, the storage sees that this process is gone
                if self.study is not None:
                    self.study.fail(self._proposal)  # somebody else may have more luck
                raise
            if self.study is not None:
                self.study.tell(self._proposal, line)
                progress.update(self.study.counts()['finished'], line, self._finished, self.survey.metric1)

    def _next(self) -> Subnet | None:
        """The next subnet to evaluate; with ``parallel='images'`` the first process asks for all."""
        number = [None if self.study is None else self._ask()]
        with self.scorer.own_world():
            broadcast_object_list(number)
        return None if number[0] is None else self.survey.costs.space[number[0]]

    def _ask(self) -> int | None:
        """The number of a subnet, after waiting for those that others are evaluating; ``None`` if there are enough."""
        waiting = False
        while True:
            counts = self.study.counts()
            if counts['finished'] >= self.subnet_count:
                return None
            if counts['finished'] + counts['running'] < self.subnet_count:
                self._proposal = self.study.ask()
                if self._proposal is not None:
                    return self._proposal.number
                self.runner.logger.info(f'no subnet within the limits is left, after {counts["finished"]}')
                return None
            if not waiting:
                self.runner.logger.info(f'waiting for {counts["running"]} subnets that other processes evaluate')
            waiting = True
            time.sleep(WAIT_SECONDS)
