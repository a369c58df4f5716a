"""Searching a supernet for the best subnets."""
from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import barrier, broadcast_object_list, is_main_process

from mmbignas.analysis.accuracy_sample import COST_NAMES
from mmbignas.errors import ConfigError
from mmbignas.evaluation.results import Progress
from mmbignas.evaluation.scoring_loop import ScoringLoop
from mmbignas.registry import LOOPS
from mmbignas.space import Subnet
from mmbignas.supernet import file_hash
from mmbignas.utils.checks import check_count

PREDICTOR: Mapping[str, int] = {}  # its defaults
WAIT_SECONDS = 1.


@LOOPS.register_module()
class SubnetSearchLoop(ScoringLoop):
    """Searches for the best subnets under constraints, with Optuna; for ``test_cfg`` or ``val_cfg``.

    The study is kept in a storage: a file in ``search`` in the work dir, or a data base. Whatever is killed, the same
    command goes on with it. Processes that are started with the same storage, on as many machines as one likes, work on
    one study, and none evaluates the subnets of another; ``optuna-dashboard`` shows it meanwhile. Each process writes
    the results at its end, see :func:`~mmbignas.evaluation.results.write_results`; those of the last one are complete.

    Args:
        runner, dataloader, evaluator: see :class:`~mmbignas.evaluation.scoring_loop.ScoringLoop`.
        subnet_count: how many subnets to evaluate, all processes and earlier runs together; where several processes ask
            for the last one at the same moment, there may be one more of each.
        constraints: any of ``macs``, ``params`` and ``latency_ms`` (with ``lut_path``) -> the most that is allowed,
            or ``[low, high]``; see :class:`~mmbignas.search.Constraints`. They are checked before anything is
            evaluated.
        objectives: names of metrics, which are maximised, and of costs (``macs``, ``params``, ``latency_ms``), which
            are minimised; ``None`` for ``metric1`` and ``macs``.
        sampler: one of :data:`~mmbignas.search.SAMPLERS`, or ``dict(type=..., **arguments of Optuna's class)``;
            ``None`` for :data:`~mmbignas.search.DEFAULT_SAMPLER`.
        predictor: ``dict(candidates=100, min_subnets=30)``, or some of it: as soon as so many subnets are evaluated, a
            regression chooses among so many candidates; ``None`` for none, see :class:`~mmbignas.search.SubnetStudy`.
        storage: a file, or a URL such as ``postgresql://user@host/name``; ``None`` for ``search/study.db``.
        study_name: of the study in its storage.
        stale_after: seconds after which a process of another machine that does not report is taken for dead, and its
            subnet given to others.
        **kwargs: see :class:`~mmbignas.evaluation.scoring_loop.ScoringLoop`; ``metric1`` has to be given.

    Raises:
        ConfigError: for arguments that are not allowed, constraints that no subnet meets, or a study of another
            supernet, space or data set.
        DependencyError: without Optuna.
    """

    FOLDER = 'search'

    def __init__(self, runner: Any, dataloader: Any, evaluator: Any, *args: Any, subnet_count: int = 200,
                 constraints: Mapping[str, Any] | None = None, objectives: Sequence[str] | None = None,
                 sampler: str | Mapping[str, Any] | None = None, predictor: Mapping[str, int] | None = PREDICTOR,
                 storage: str | Path | None = None, study_name: str = 'subnets', stale_after: float = 600.,
                 **kwargs: Any) -> None:
        self.subnet_count, self.storage, self.study_name = subnet_count, storage, study_name
        self.objectives: Sequence[str] = () if objectives is None else objectives
        self._default_objectives = objectives is None
        self._settings: dict[str, Any] = dict(constraints=constraints, predictor=predictor, stale_after=stale_after)
        if sampler is not None:
            self._settings['sampler'] = sampler
        super().__init__(runner, dataloader, evaluator, *args, **kwargs)

    def _prepare_draws(self) -> None:
        check_count(self.subnet_count, 'subnet_count')
        if self.metric1 is None:
            raise ConfigError("metric1: None is not allowed in a search; allowed: the name of a metric, such as "
                              "'coco/bbox_mAP'")
        if self._default_objectives:
            self.objectives = [self.metric1, 'macs']
        from optuna.storages import InMemoryStorage

        from mmbignas.search import open_storage

        self._study(InMemoryStorage(), {}, '')  # to find mistakes before data are loaded
        if self.storage is not None and is_main_process():
            open_storage(self.storage)

    def _study(self, storage: Any, identity: Mapping[str, str], version: str) -> Any:
        from mmbignas.search import SubnetStudy

        name = self.study_name + f'_{version}' * bool(version) if isinstance(self.study_name, str) else self.study_name
        return SubnetStudy(self.cost_model.space, self.costs, self.objectives, storage, seed=self.seed, name=name,
                           identity=identity, **self._settings)

    def identity(self) -> dict[str, str]:
        """As of the base class; latencies, which constraints and objectives may be about, are of one table too."""
        return dict(super().identity(), latency='none' if self.lut_path is None else file_hash(self.lut_path))

    def _go_through(self, identity: Mapping[str, str]) -> None:
        storage = self.folder / 'study.db' if self.storage is None else self.storage
        self.folder.mkdir(parents=True, exist_ok=True)
        self.study: Any = None
        self._proposal: Any = None
        if is_main_process():
            self.study = self._study(storage, identity, self._version(identity))
        barrier()
        if self.parallel == 'subnet' and self.study is None:
            self.study = self._study(storage, identity, self._version(identity))
        for line in self._finished():
            self.check_metrics(line['metrics'])
        progress = Progress(self.subnet_count, len(self._finished()), self.runner.logger.info)
        while (subnet := self._next()) is not None:
            line = self._score_proposal(subnet)
            if self.study is not None:
                finished = self.study.counts()['finished']
                progress.update(finished, line, self._finished, self.metric1)

    def _next(self) -> Subnet | None:
        """The next subnet to evaluate; with ``parallel='images'`` the first process asks for all."""
        number = [None if self.study is None else self._ask()]
        with self._own_world():
            broadcast_object_list(number)
        return None if number[0] is None else self.cost_model.space[number[0]]

    def _ask(self) -> int | None:
        """Get the number of a subnet; wait for those that others are evaluating before giving up."""
        waiting = False
        while True:
            counts = self.study.counts()
            if counts['finished'] >= self.subnet_count:
                return None
            if counts['finished'] + counts['running'] < self.subnet_count:
                self._proposal = self.study.ask()
                if self._proposal is not None:
                    return self._proposal.number
                self.runner.logger.info(f'no subnet is left that keeps the limits, after {counts["finished"]}')
                return None
            if not waiting:
                self.runner.logger.info(f'waiting for {counts["running"]} subnets that other processes evaluate')
            waiting = True
            time.sleep(WAIT_SECONDS)

    def _score_proposal(self, subnet: Subnet) -> dict[str, Any]:
        try:
            line = self.score(subnet)
        except Exception:  # after Ctrl-C, the storage sees that this process is gone
            if self.study is not None:
                self.study.fail(self._proposal)  # somebody else may have more luck
            raise
        if self.study is not None:
            self.study.tell(self._proposal, line)
            self._proposal = None
        return line

    def _finished(self) -> list[dict[str, Any]]:
        return [] if self.study is None else self.study.lines()

    def _wanted_metrics(self) -> dict[str, str]:
        """As of the base class, and the objectives."""
        objectives = {f'{self.key}.objectives[{index}]': name for index, name in enumerate(self.objectives)
                      if name not in COST_NAMES}
        return {**super()._wanted_metrics(), **objectives}

    def _allowed(self, subnet: Subnet) -> bool:
        return self.study.constraints.allow(subnet)

    def lines(self) -> list[dict[str, Any]]:
        """What is known of each subnet, in the order in which they were proposed."""
        lines = self._finished()
        from mmbignas.search.storage import shown

        storage = self.folder / 'study.db' if self.storage is None else self.storage
        self.runner.logger.info(f'the study has {len(lines)} subnets; to look at it: optuna-dashboard {shown(storage)}')
        return lines

    def flops_range(self) -> tuple[int | None, int | None]:
        """The fewest and the most MACs that the constraints allow; ``None`` for no limit."""
        low, high = self.study.constraints.limits.get('macs', (0, float('inf')))
        return None if low == 0 else int(low), None if high == float('inf') else int(high)
