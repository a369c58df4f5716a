"""Drawing subnets of a supernet and evaluating each of them."""
from __future__ import annotations

import random
from functools import partial
from typing import Any

from mmengine.dist import barrier, get_dist_info, is_main_process
from mmengine.runner import BaseLoop

from mmbignas.cost.sampling import SubnetSampling
from mmbignas.evaluation.ledger import Ledger, only_run
from mmbignas.evaluation.results import Progress
from mmbignas.evaluation.scorer import stage_of
from mmbignas.evaluation.survey import SubnetCosts, SubnetSurvey
from mmbignas.registry import LOOPS
from mmbignas.utils.rules import errors_below, integer


@LOOPS.register_module()
class SampleAccuracyLoop(BaseLoop):
    """Draws subnets, calibrates and evaluates each, and reports the best; for ``test_cfg`` or ``val_cfg``.

    Every finished subnet is a line of ``sample_accuracy/ledger.jsonl`` in the work dir, on the disk before the next one
    begins. After an interruption, even by ``kill -9``, the same command continues and repeats nothing. The results are
    beside it, see :func:`~mmbignas.evaluation.results.write_results`. As ``val_cfg`` each validation has a folder of
    its own. The model is the same afterwards as before, see :meth:`~mmbignas.evaluation.scorer.SubnetScorer.running`.

    Args:
        runner, dataloader, evaluator: as MMEngine gives them to a loop.
        image_size: ``[height, width]`` in pixels, as the model sees it after padding: what MACs are counted for. A
            list of such sizes makes it a dimension of the space, see
            :func:`~mmbignas.data.resizing.at_resolution`; the data pipeline has to give the largest.
        lut_path: latency table, from which latencies are predicted.
        seed: of the draws.
        subnet_count, subnet_sample_mode, flops_range: see :class:`~mmbignas.cost.sampling.SubnetSampling`. A larger
            number in a later run goes on with the same draws, except for ``traverse``, which then walks in other steps.
        **survey: ``metric1``, ``metric2``, ``calib_bn``, ``val_images``, ``baseline_flops``, ``large_flops``,
            ``sample_with_finetune``, ``parallel``, ``predicted_count``, ``fp16``, ``interpolation_type``, see
            :class:`~mmbignas.evaluation.survey.SubnetSurvey`.

    Raises:
        ConfigError: for arguments that are not allowed, a range that no subnet reaches, or results of another
            supernet, space or data set in the folder.
    """

    def __init__(self, runner: Any, dataloader: Any, evaluator: Any, image_size: Any = None,
                 lut_path: str | None = None, seed: int = 0, subnet_count: int = 2000,
                 subnet_sample_mode: str = 'random', flops_range: Any = None, **survey: Any) -> None:
        key = f'{stage_of(runner, dataloader)}_cfg'
        costs = SubnetCosts(runner.model, image_size, lut_path, key, runner.cfg.get('model'))
        with errors_below(key):
            sampling = SubnetSampling(subnet_count, subnet_sample_mode, flops_range)
            draws = sampling.draw(costs.cost_model, random.Random(integer(0).check(seed, 'seed')))
            self.draws = {own.number: own.subnet for own in draws}
        self.survey = SubnetSurvey(runner, dataloader, evaluator, costs, 'sample_accuracy', seed=seed,
                                   flops_range=(sampling.low, sampling.high), **survey)
        self.scorer = self.survey.scorer
        super().__init__(runner, self.scorer.dataloader)
        self.evaluator = self.scorer.evaluator

    def run(self) -> dict[str, float]:
        """Evaluate the subnets that are left, and write the results.

        Returns:
            dict: how many subnets were evaluated, and what the best of them reach.

        Raises:
            ConfigError: for results of something else in the folder, or when there is no ``metric1`` or ``metric2``
                among the metrics.
        """
        with self.survey.running() as run:
            path = run.folder / 'ledger.jsonl'
            if is_main_process():
                Ledger(path, run.identity)
            barrier()
            with only_run(path):
                ledger = Ledger(path, run.identity, self.survey.is_usable)
                finished = ledger.lines()
                self.survey.see(line['metrics'] for line in finished.values())
                barrier()  # nobody writes before all have read
                self._evaluate([number for number in self.draws if number not in finished], ledger)
                barrier()
                lines = self._of_this_run(ledger)
            run.lines = [self.survey.restored(lines[number]) for number in self.draws]
        return run.metrics

    def _evaluate(self, numbers: list[int], ledger: Ledger) -> None:
        done = len(self.draws) - len(numbers)
        if done:
            self.runner.logger.info(f'{ledger.path}: {done} of {len(self.draws)} subnets are finished, '
                                    f'{len(numbers)} are left')
        rank, world_size = get_dist_info()
        alone = self.scorer.parallel == 'subnet'
        progress = Progress(len(self.draws), done, self.runner.logger.info)
        for number in numbers[rank::world_size] if alone else numbers:
            line = self.survey.score(self.draws[number])
            if alone or is_main_process():
                ledger.append(line)
                finished = self._of_this_run(ledger)
                progress.update(len(finished), line, partial(map, self.survey.restored, finished.values()),
                                self.survey.metric1)

    def _of_this_run(self, ledger: Ledger) -> dict[int, dict[str, Any]]:
        """Number -> line of the finished subnets that were drawn; an earlier run may have drawn others."""
        return {number: line for number, line in ledger.lines().items() if number in self.draws}
