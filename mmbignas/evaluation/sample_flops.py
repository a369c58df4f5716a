"""A whole space at a glance, before any training: what its subnets cost."""
from __future__ import annotations

import inspect
import json
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.evaluator import Evaluator
from mmengine.runner import BaseLoop
from rich.console import Console
from rich.progress import track
from torch import nn

from mmbignas.analysis import CostSample, draw_macs, draw_macs_params
from mmbignas.analysis.cost_sample import NEAR_PERCENT
from mmbignas.cost import CostModel
from mmbignas.cost.sampling import SubnetSampling
from mmbignas.data import is_one_size
from mmbignas.latency import LatencyPredictor, LatencyTable
from mmbignas.registry import LOOPS
from mmbignas.space import SearchSpace, json_number
from mmbignas.utils.files import written_together
from mmbignas.utils.rules import check_keys, integer
from mmbignas.utils.units import parse_amount

FILES = ('subnets.jsonl', 'summary.json', 'macs.png', 'macs_params.png')


class SampleFlops:
    """Draws subnets of a model, and writes down and draws what they cost.

    As usual in the field, the arguments' FLOPs are multiply-adds; whatever is written or drawn says MACs.

    Args:
        image_size: ``[height, width]`` in pixels, or a list of them to choose from.
        subnet_count, subnet_sample_mode, flops_range: see :class:`~mmbignas.cost.sampling.SubnetSampling`.
        baseline_flops: MACs of a network to compare with, a number or a string such as ``'20G'``: how many subnets
            come near it is reported, and it is marked in the pictures.
        large_flops: the same for a second network.
        lut_path: latency table, from which latencies are predicted.
        seed: of the draws.

    Raises:
        ConfigError: for arguments that are not allowed.
    """

    def __init__(self, image_size: Any = None, subnet_count: int = 10_000, subnet_sample_mode: str = 'random',
                 flops_range: Any = None, baseline_flops: Any = None, large_flops: Any = None,
                 lut_path: str | None = None, seed: int = 0) -> None:
        single = image_size is None or is_one_size(image_size)
        self.image_sizes = SearchSpace({}, [image_size] if single else image_size).image_sizes
        self.sampling = SubnetSampling(subnet_count, subnet_sample_mode, flops_range)
        marks = dict(baseline=baseline_flops, large=large_flops)
        self.marks = {name: parse_amount(value, f'{name}_flops') for name, value in marks.items() if value is not None}
        self.table = None if lut_path is None else LatencyTable.load(lut_path)
        self.seed = integer().check(seed, 'seed')

    @classmethod
    def from_config(cls, arguments: Mapping[str, Any]) -> SampleFlops:
        """Build from the arguments of a ``test_cfg``.

        Raises:
            ConfigError: for arguments that do not exist, or are not allowed.
        """
        return cls(**check_keys(arguments, 'test_cfg', list(inspect.signature(cls).parameters)))

    def run(self, model: nn.Module, out: str | Path, log: Callable[[str], Any] = print,
            model_cfg: Mapping[str, Any] | None = None) -> CostSample:
        """Draw, and write ``subnets.jsonl``, ``summary.json``, ``macs.png`` and ``macs_params.png``.

        While it draws, the lines are in a hidden folder, ``.subnets.jsonl.*.partial``. The files get their names
        together, when all of them are complete.

        Args:
            model: a supernet, also on the meta device.
            out: folder for the files.
            log: is given the report for people at the end.
            model_cfg: config of the model, which has to be that of the latency table; ``None`` where there is none.

        Raises:
            ConfigError: for a folder that cannot be written to, a model without costs, a latency table of another
                model, or a range without subnets.
        """
        begin = time.time()
        with written_together(Path(out), FILES) as (record, summary, macs, macs_params):
            cost_model = CostModel(model, self.image_sizes)
            sample = self._draw(cost_model, record, model_cfg)
            draw_macs(sample, macs)
            draw_macs_params(sample, macs_params)
            seconds = round(time.time() - begin, 1)
            content = dict(sample.summary(), seed=self.seed, subnet_count=self.sampling.count,
                           subnet_sample_mode=self.sampling.mode, seconds=seconds)
            summary.write_text(json.dumps(content, indent=2) + '\n', encoding='utf-8')
        log(f'{sample.report()}\n{seconds} s; in {out}: {", ".join(FILES)}')
        return sample

    def _draw(self, cost_model: CostModel, record: Path, model_cfg: Mapping[str, Any] | None) -> CostSample:
        """Draw the subnets, and write a line about each."""
        latency = None if self.table is None else LatencyPredictor(self.table, cost_model, model_cfg)
        draws = self.sampling.draw(cost_model, random.Random(self.seed))
        costs, image_sizes, latencies = [], [], []
        console = Console(stderr=True)
        progress = track(draws, 'Drawing subnets', draws.total, console=console, transient=True,
                         disable=not console.is_terminal)
        with record.open('w', encoding='utf-8', buffering=1) as file:  # line by line
            for number, subnet, cost in progress:
                costs.append(cost)
                image_sizes.append(subnet.image_size or cost_model.space.image_sizes[0])
                line: dict[str, Any] = dict(
                    number=json_number(number), macs=cost.macs, ops=cost.ops, params=cost.params,
                    modules={name: part._asdict() for name, part in cost.modules.items()}, image_size=image_sizes[-1])
                if latency is not None:
                    latencies.append(latency(subnet))
                    line['latency_ms'] = latencies[-1]
                file.write(json.dumps(dict(line, subnet_settings=subnet.to_dict())) + '\n')
        return CostSample([cost.macs for cost in costs], [cost.params for cost in costs], image_sizes,
                          cost_model.space.size, draws.drawn, draws.smallest, draws.largest,
                          (self.sampling.low, self.sampling.high), self.marks, latencies)


@LOOPS.register_module()
class SampleFlopsLoop(BaseLoop):
    """Draws subnets, and writes down and draws what they cost; serves as ``test_cfg``.

    No image is needed: neither the data set nor the evaluator is built. The files are written to ``sample_flops`` in
    the run's folder, by the first process alone; see :class:`SampleFlops`.

    Args:
        runner, dataloader, evaluator: as MMEngine gives them to a loop; the last two are left alone.
        **arguments: those of :class:`SampleFlops`.

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
            dict: how many subnets there are; minimum, median and maximum of their MACs and parameters; and how many
            are within 1 and 5 % of each network to compare with.
        """
        self.runner.call_hook('before_test')
        self.runner.call_hook('before_test_epoch')
        results = [self._draw() if is_main_process() else {}]
        broadcast_object_list(results)  # where the other processes wait for the first
        self.runner.call_hook('after_test_epoch', metrics=results[0])
        self.runner.call_hook('after_test')
        return results[0]

    def _draw(self) -> dict[str, float]:
        sample = self.sample_flops.run(self.runner.model, Path(self.runner.log_dir, 'sample_flops'),
                                       self.runner.logger.info, self.runner.cfg.get('model'))
        metrics: dict[str, float] = dict(subnets=len(sample.macs))
        for cost, values in sample.percentiles().items():
            metrics.update({f'{cost}_min': values['0'], f'{cost}_median': values['50'], f'{cost}_max': values['100']})
        for name, macs in sample.marks.items():
            metrics.update({f'within_{percent}_percent_of_{name}': sample.near(macs, percent)
                            for percent in NEAR_PERCENT})
        return {f'sample_flops/{name}': value for name, value in metrics.items()}
