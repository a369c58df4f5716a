"""Costs and accuracies of many subnets, and what is written about them."""
from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.evaluator import Evaluator
from torch import nn
from torch.utils.data import DataLoader

from mmbignas.analysis.accuracy_sample import COST_NAMES, AccuracySample, EvaluatedSubnet
from mmbignas.cost import CostModel
from mmbignas.cost.sampling import SubnetSampling
from mmbignas.data import is_one_size, read_image_sizes
from mmbignas.dependencies import installed
from mmbignas.errors import ConfigError
from mmbignas.evaluation.evaluation_identity import evaluation_identity
from mmbignas.evaluation.ledger import line_number
from mmbignas.evaluation.metrics import WantedMetrics, json_metrics, number_metrics, without_number
from mmbignas.evaluation.results import export_command, predict_others, write_config, write_results
from mmbignas.evaluation.scorer import SubnetEval, SubnetScorer, stage_of
from mmbignas.latency import LatencyPredictor, LatencyTable
from mmbignas.space import ImageSize, Subnet, json_number
from mmbignas.supernet import Supernet
from mmbignas.utils.distributed import buffers_of_the_first
from mmbignas.utils.files import writing
from mmbignas.utils.identity import config_hash
from mmbignas.utils.metric_values import is_number
from mmbignas.utils.rules import METRIC_NAME, boolean, check_options, integer, must_be
from mmbignas.utils.units import parse_amount

RULES = dict(metric1=METRIC_NAME, metric2=METRIC_NAME, calib_bn=boolean(), predicted_count=integer(0))
Range = tuple[int | None, int | None]


class SubnetCosts:
    """What subnets cost: MACs, parameters and, with a latency table, predicted milliseconds.

    Args:
        model: the supernet, or a wrapper around it.
        image_size: ``[height, width]`` in pixels, or a list of such sizes.
        lut_path: file of the latency table; ``None`` for no latencies.
        key: place of ``image_size`` in the config is ``<key>.image_size``.
        model_cfg: config of the supernet, which has to be that of the latency table; ``None`` where there is none.

    Raises:
        ConfigError: for an image size that the model cannot see, or a latency table of something else.

    Attributes:
        cost_model: exact MACs and parameters.
        space: the subnets, with the image size as a dimension where there are several.
        only_size: the size of a list with a single one, to which images are resized.
    """

    def __init__(self, model: nn.Module, image_size: Any, lut_path: str | None, key: str,
                 model_cfg: Mapping[str, Any] | None = None) -> None:
        model = Supernet(model).model
        sizes = read_image_sizes(model, image_size, f'{key}.image_size')
        self.only_size = None if len(sizes) > 1 or is_one_size(image_size) else sizes[0]
        self.cost_model = CostModel(model, sizes)
        self.space = self.cost_model.space
        self._latency = None if lut_path is None else LatencyPredictor(
            LatencyTable.load(lut_path), self.cost_model, model_cfg)

    def image_size(self, subnet: Subnet) -> ImageSize:
        """Height and width in pixels that a subnet's costs are of."""
        return subnet.image_size or self.space.image_sizes[0]

    def __call__(self, subnet: Subnet) -> dict[str, float]:
        """``macs``, ``params`` and, with a latency table, ``latency_ms`` of a subnet."""
        cost = self.cost_model(subnet)
        latency = {} if self._latency is None else dict(latency_ms=self._latency(subnet))
        return dict(macs=cost.macs, params=cost.params, **latency)


@dataclass
class SurveyRun:
    """One run of a survey.

    Args:
        folder: for its files. Each validation of a training has a folder of its own.
        identity: what the figures depend on.
        version: tells the validations of a training apart, also where a training is repeated; '' in a test.
        lines: to be filled with what is known about each evaluated subnet; those of the first process count.
        metrics: at the end, how many subnets were evaluated, and what the best of them reach.
    """

    folder: Path
    identity: Mapping[str, Any]
    version: str
    lines: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)


class SubnetSurvey:
    """Evaluates subnets for a loop that compares many, and writes the results; the loop says which subnets.

    In a loop::

        with self.survey.running() as run:
            run.lines = [self.survey.score(subnet) for subnet in self.subnets]
        return run.metrics

    Args:
        runner, dataloader, evaluator: as MMEngine gives them to a loop.
        costs: what subnets cost; its space is that of the survey.
        name: of the folder in the work dir, and prefix of the metrics for MMEngine's hooks.
        flops_range: the fewest and the most MACs that were asked for; ``None`` for no limit.
        allowed: whether a subnet keeps all limits, for the predicted ones.
        objectives: names of metrics and costs that have to exist besides ``metric1`` and ``metric2``.
        metric1: name of the metric that makes a subnet good, the more the better, e.g. ``coco/bbox_mAP``; ``None`` for
            the first one.
        metric2: another one to show.
        calib_bn: calibrate the BN statistics of each subnet.
        baseline_flops: MACs of a network to compare with, e.g. ``'20G'``: the best subnets near it are listed.
        large_flops: of a second one.
        predicted_count: predict ``metric1`` for this many other subnets from those that were evaluated, see
            :func:`~mmbignas.evaluation.results.predict_others`; 0 for none.
        seed: of the draws, and of the choice of images.
        **scoring: ``val_images``, ``sample_with_finetune``, ``parallel``, ``fp16`` and ``interpolation_type``, see
            :class:`~mmbignas.evaluation.scorer.SubnetScorer`.

    Raises:
        ConfigError: for options that are not allowed, or metrics that cannot exist.

    Attributes:
        scorer: evaluates the subnets. No detection at all counts as 0.
    """

    def __init__(self, runner: Any, dataloader: DataLoader | dict, evaluator: Evaluator | dict | list,
                 costs: SubnetCosts, name: str, *, flops_range: Range = (None, None),
                 allowed: Callable[[Subnet], bool] = lambda subnet: True, objectives: Sequence[str] = (),
                 metric1: str | None = None, metric2: str | None = None, calib_bn: bool = True,
                 baseline_flops: Any = None, large_flops: Any = None, predicted_count: int = 10_000, seed: int = 0,
                 **scoring: Any) -> None:
        self.key = key = f'{stage_of(runner, dataloader)}_cfg'
        check_options(key, locals(), RULES)
        self.runner, self.costs, self.name, self.flops_range, self.allowed = runner, costs, name, flops_range, allowed
        self.metric1, self.metric2, self.calib_bn = metric1, metric2, calib_bn
        self.predicted_count, self.seed = predicted_count, seed
        self.marks = {mark: parse_amount(macs, f'{key}.{mark}_flops') for mark, macs in dict(
            baseline=baseline_flops, large=large_flops).items() if macs is not None}
        self.scorer = SubnetScorer(runner, dataloader, evaluator, calib_bn=calib_bn, only_size=costs.only_size,
                                   many=True, seed=seed, **scoring)
        self._ranking = {f'{key}.metric1': metric1, **{
            f'{key}.objectives[{index}]': own for index, own in enumerate(objectives) if own not in COST_NAMES}}
        self._wanted = WantedMetrics({**self._ranking, f'{key}.metric2': metric2}, self.scorer)
        self._names, self._numbers = dict[str, None](), dict[str, None]()  # of metrics, and those with a number

    @contextmanager
    def running(self, **identity: Any) -> Iterator[SurveyRun]:
        """One validation or test; at its end the first process writes the results.

        All processes evaluate with the statistics of the first one. The model is as before afterwards, see
        :meth:`~mmbignas.evaluation.scorer.SubnetScorer.running`.

        Args:
            **identity: what the figures depend on besides the supernet, the space, the data and the options.

        Yields:
            SurveyRun: its lines are to be filled.
        """
        scorer = self.scorer
        with scorer.running() as metrics:
            with buffers_of_the_first(scorer.supernet.model):
                identity = dict(self.identity(), **identity)
                version = '' if scorer.iteration is None else f'iter_{scorer.iteration}_{config_hash(identity)[:8]}'
                run = SurveyRun(Path(self.runner.work_dir, self.name, version), identity, version, metrics=metrics)
                yield run
            written = [self._write(run) if is_main_process() else {}]
            broadcast_object_list(written)
            metrics.update({f'{self.name}/{name}': value for name, value in written[0].items()})

    def identity(self) -> dict[str, Any]:
        """What the figures depend on."""
        return evaluation_identity(self.runner, self.scorer, self.costs.space, self.calib_bn)

    def score(self, subnet: Subnet) -> dict[str, Any]:
        """Calibrate and evaluate a subnet of the space; return all that is known about it, as JSON can hold it.

        Raises:
            ConfigError: when there is no ``metric1`` or ``metric2`` among its metrics, or one to rank by that is no
                number for any subnet.
        """
        begin = time.perf_counter()
        number = self.costs.space.index(subnet)
        metrics = self.scorer.evaluate(SubnetEval(f'subnet{number}', subnet, self.calib_bn))
        kept = json_metrics({name: metrics[name] for name in number_metrics(metrics)})
        self.see([kept])
        return self._line(number, subnet, kept, seconds=round(time.perf_counter() - begin, 3), seed=self.seed)

    def is_usable(self, line: Mapping[str, Any]) -> bool:
        """Whether a line that was read, with a number and metrics, is whole and of a subnet of the space.

        Its number and its settings have to say the same, so that no damaged number gives a subnet another's metrics.
        """
        number = line_number(line)
        if number is None or number >= self.costs.space.size:
            return False
        return line.get('subnet_settings') == json.loads(json.dumps(self.costs.space[number].to_dict()))

    def restored(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """A usable line that was read, as :meth:`score` would give it now: with costs that were not read."""
        number = int(line['number'])
        return self._line(number, self.costs.space[number], line['metrics'],
                          **{name: line[name] for name in ('seconds', 'seed') if name in line})

    def _line(self, number: int, subnet: Subnet, metrics: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        cost = self.costs.cost_model(subnet)
        return dict(number=json_number(number), subnet_settings=subnet.to_dict(),
                    image_size=list(self.costs.image_size(subnet)), macs=cost.macs, ops=cost.ops, params=cost.params,
                    latency_ms=self.costs(subnet).get('latency_ms'), metrics=dict(metrics), **more)

    def see(self, found: Iterable[Mapping[str, Any]]) -> None:
        """Make sure that the metrics that the config names exist; take the first one where it names none.

        Args:
            found: metrics of subnets; none at all, as after an evaluation without detections, say nothing.

        Raises:
            ConfigError: listing those that exist, or for a metric to rank by that is no number for any subnet so far,
                as of a class without a box.
        """
        for metrics in found:
            self._wanted.see(metrics)
            self._numbers.update(dict.fromkeys(name for name, value in metrics.items() if is_number(value)))
            self._names.update(dict.fromkeys(metrics))
        self.metric1 = self.metric1 or next(iter(self._numbers), None)
        for key, name in self._ranking.items():
            if name in self._names and name not in self._numbers:
                others = f', such as {" or ".join(self._numbers)}' if self._numbers else ''
                raise must_be(key, f'a metric that is a number for these data{others}', name)

    def _write(self, run: SurveyRun) -> dict[str, float]:
        self.see(line['metrics'] for line in run.lines)
        run.lines = without_number(run.lines)
        with writing(run.folder):
            run.folder.mkdir(parents=True, exist_ok=True)
        sample = AccuracySample([EvaluatedSubnet.from_line(line) for line in run.lines], self.metric1, self.metric2,
                                self.marks, self.flops_range, self.costs.space.size)
        config = run.folder / 'config.py'
        write_config(self.runner.cfg, self.key, config)
        # In a training, load_from is where it began.
        command = export_command(config, self.runner._load_from if self.scorer.iteration is None else None)
        return write_results(sample, run.folder, command, self.runner.logger.info, self._predict(sample))

    def _predict(self, sample: AccuracySample) -> dict[str, Any] | None:
        """Predict the accuracy of other subnets in the range."""
        if not self.predicted_count:
            return None
        if not installed('sklearn'):
            self.runner.logger.info('no prediction of other subnets without scikit-learn: pip install '
                                    '"mmbignas[search]"')
            return None
        sampling = SubnetSampling(self.predicted_count, 'random', self.flops_range)
        draws = sampling.draw(self.costs.cost_model, random.Random(self.seed + 1))
        try:
            others = [own.subnet for own in draws if self.allowed(own.subnet)]
        except ConfigError as error:  # so narrow a range that drawing does not meet it
            self.runner.logger.info(f'no prediction of other subnets: {error}')
            return None
        return predict_others(sample, self.costs.space, self.costs, others)
