"""The costs of a space as a test loop."""
from __future__ import annotations

import os.path as osp
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.evaluator import Evaluator
from mmengine.runner import BaseLoop

from mmbignas.analysis.cost_sample import NEAR_PERCENT
from mmbignas.evaluation.sample_flops import SampleFlops
from mmbignas.registry import LOOPS


@LOOPS.register_module()
class SampleFlopsLoop(BaseLoop):
    """Draws subnets, and writes down and draws what they cost; serves as ``test_cfg``.

    No image is needed: neither the data set nor the evaluator is built. The files are written to ``sample_flops`` in
    the run's folder, by the first process alone; see :class:`~mmbignas.evaluation.sample_flops.SampleFlops`.

    Args:
        runner: the runner.
        dataloader, evaluator: of the test; they are left alone.
        image_size, subnet_count, subnet_sample_mode, flops_range, baseline_flops, large_flops, lut_path, seed: see
            :class:`~mmbignas.evaluation.sample_flops.SampleFlops`.

    Raises:
        ConfigError: for arguments that are not allowed.
    """

    def __init__(self, runner: Any, dataloader: Any, evaluator: Any, **arguments: Any) -> None:
        self.sample_flops = SampleFlops.from_config(arguments)
        super().__init__(runner, [])  # no batches
        self.evaluator = Evaluator([])  # the test tools add to it

    def run(self) -> dict[str, float]:
        """Draw the subnets.

        Returns:
            dict: how many subnets came out, and minimum, median and maximum of their MACs and parameters; and how many
            are within so many percent of each network to compare with.
        """
        self.runner.call_hook('before_test')
        self.runner.call_hook('before_test_epoch')
        results = [self._draw() if is_main_process() else {}]
        broadcast_object_list(results)  # where the other processes wait for the first
        self.runner.call_hook('after_test_epoch', metrics=results[0])
        self.runner.call_hook('after_test')
        return results[0]

    def _draw(self) -> dict[str, float]:
        sample = self.sample_flops.run(self.runner.model, osp.join(self.runner.log_dir, 'sample_flops'),
                                       self.runner.logger.info)
        metrics: dict[str, float] = dict(subnets=len(sample.macs))
        for cost, values in sample.percentiles().items():
            metrics.update({f'{cost}_min': values['0'], f'{cost}_median': values['50'], f'{cost}_max': values['100']})
        for name, macs in sample.marks.items():
            metrics.update({f'within_{percent}_percent_of_{name}': sample.near(macs, percent)
                            for percent in NEAR_PERCENT})
        return {f'sample_flops/{name}': value for name, value in metrics.items()}
