"""Drawing subnets of a supernet and evaluating each of them."""
from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from mmengine.dist import barrier, get_dist_info, is_main_process

from mmbignas.cost.sampling import SubnetSampling
from mmbignas.evaluation.ledger import Ledger, only_run
from mmbignas.evaluation.results import Progress
from mmbignas.evaluation.scoring_loop import ScoringLoop
from mmbignas.evaluation.subnet_loop import stage_of
from mmbignas.registry import LOOPS
from mmbignas.utils.checks import errors_below


@LOOPS.register_module()
class SampleAccuracyLoop(ScoringLoop):
    """Draws subnets, calibrates and evaluates each, and says which are the best; for ``test_cfg`` or ``val_cfg``.

    Every finished subnet is a line of ``sample_accuracy/ledger.jsonl`` in the work dir, on the disk before the next
    one begins. The same command goes on where it was interrupted, by ``kill -9`` or otherwise, and repeats none. The
    results lie beside it, see :func:`~mmbignas.evaluation.results.write_results`. As ``val_cfg`` each validation has a
    folder of its own.

    Args:
        runner, dataloader, evaluator: see :class:`~mmbignas.evaluation.scoring_loop.ScoringLoop`.
        subnet_count: how many subnets. A larger number in a later run goes on with the same draws, but for
            ``traverse``, which walks in other steps then.
        subnet_sample_mode: ``random``, ``uniform`` or ``traverse``, see
            :class:`~mmbignas.cost.sampling.SubnetSampling`.
        flops_range: ``[low, high]`` of the MACs, either end a number, a string such as ``'20G'``, or ``None``.
        **kwargs: see :class:`~mmbignas.evaluation.scoring_loop.ScoringLoop`.

    Raises:
        ConfigError: for arguments that are not allowed, a range that no subnet reaches, or results of another
            supernet, space or data set in the folder.
    """

    FOLDER = 'sample_accuracy'

    def __init__(self, runner: Any, dataloader: Any, evaluator: Any, *args: Any, subnet_count: int = 2000,
                 subnet_sample_mode: str = 'random', flops_range: Any = None, **kwargs: Any) -> None:
        with errors_below(f'{stage_of(runner, dataloader)}_cfg'):
            self.sampling = SubnetSampling(subnet_count, subnet_sample_mode, flops_range)
        super().__init__(runner, dataloader, evaluator, *args, **kwargs)

    def _prepare_draws(self) -> None:
        self.draws = {own.number: own.subnet for own in self.sampling.draw(self.cost_model, random.Random(self.seed))}

    def _go_through(self, identity: Mapping[str, str]) -> None:
        path = self.folder / 'ledger.jsonl'
        if is_main_process():
            Ledger(path, identity)
        barrier()
        with only_run(path):
            ledger = Ledger(path, identity)
            finished = ledger.lines()
            for line in finished.values():
                self.check_metrics(line['metrics'])
            barrier()  # nobody writes before all have read
            self._evaluate_rest([number for number in self.draws if number not in finished], ledger)
            barrier()
            self._lines = self._of_this_run(ledger)

    def _evaluate_rest(self, numbers: list[int], ledger: Ledger) -> None:
        done = len(self.draws) - len(numbers)
        if done:
            self.runner.logger.info(f'{ledger.path}: {done} of {len(self.draws)} subnets are finished, '
                                    f'{len(numbers)} are left')
        rank, world_size = get_dist_info()
        alone = self.parallel == 'subnet'
        progress = Progress(len(self.draws), done, self.runner.logger.info)
        for number in numbers[rank::world_size] if alone else numbers:
            line = self.score(self.draws[number])
            if alone or is_main_process():
                ledger.append(line)
                finished = self._of_this_run(ledger)
                progress.update(len(finished), line, finished.values, self.metric1)

    def _of_this_run(self, ledger: Ledger) -> dict[int, dict[str, Any]]:
        """Number -> line of the finished subnets that were drawn; an earlier run may have drawn others."""
        return {number: line for number, line in ledger.lines().items() if number in self.draws}

    def lines(self) -> list[dict[str, Any]]:
        """What is known of each subnet, in the order of the draws."""
        # Latencies may have been predicted from another table, or none, when the line was written.
        return [dict(self._lines[number], latency_ms=self.costs(subnet).get('latency_ms'))
                for number, subnet in self.draws.items()]

    def flops_range(self) -> tuple[int | None, int | None]:
        """The fewest and the most MACs that were asked for; ``None`` for no limit."""
        return self.sampling.low, self.sampling.high
