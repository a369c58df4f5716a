"""Subnets side by side: what each of them costs, and how good it is without and with BN calibration."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import barrier, is_main_process, master_only
from mmengine.evaluator import Evaluator
from mmengine.registry import MODELS
from terminaltables import AsciiTable
from torch.utils.data import DataLoader

from mmbignas.cost import Cost
from mmbignas.data import is_one_size
from mmbignas.errors import ConfigError
from mmbignas.evaluation.metrics import WantedMetrics, json_metrics, number_metrics, plain_metrics
from mmbignas.evaluation.scorer import SubnetEval, stage_of
from mmbignas.evaluation.subnet_val_loop import SubnetValLoop
from mmbignas.evaluation.survey import SubnetCosts
from mmbignas.latency import Latency, build_backend, measure_latency
from mmbignas.registry import LOOPS
from mmbignas.space import Subnet, json_number
from mmbignas.supernet import subnet_config
from mmbignas.utils.files import write_json
from mmbignas.utils.metric_values import format_metric
from mmbignas.utils.random_states import preserved_rng
from mmbignas.utils.rules import METRIC_NAME, check_keys, check_options, errors_below, integer, must_be
from mmbignas.utils.units import format_macs, format_params

LATENCY: dict[str, Any] = dict(backend='torch', device='cpu', threads=1, batch_size=1)


@LOOPS.register_module()
class EvaluateSubnetLoop(SubnetValLoop):
    """Evaluates subnets like :class:`SubnetValLoop`, and says what they cost; for ``test_cfg``.

    The costs come first: if one cannot be determined, nothing is evaluated. The table at the end has one line per
    subnet: MACs, parameters, latency and the main metrics. ``evaluation.json`` in the run's folder has everything; it
    is written again after each evaluation. As ``val_cfg`` it works too: the costs are then determined before the first
    validation, and the file is that of the last one.

    Args:
        runner, dataloader, evaluator, subnets, calib_bn, fp16, interpolation_type: see :class:`SubnetValLoop`.
        image_size: ``[height, width]`` in pixels, as the model sees it, for MACs and latency; a list of such sizes
            to choose from where the subnets were trained in several, and each is then evaluated in its own.
        latency: how the exported networks are measured: ``backend``, ``device`` and ``threads`` as for
            :func:`~mmbignas.latency.measure_latency`, ``batch_size``; by default PyTorch, one thread of the CPU
            and one image. ``None`` for no latency.
        metric1: name of the metric in the table, e.g. ``coco/bbox_mAP``; ``None`` for the first one.
        metric2: name of one more.

    Raises:
        ConfigError: for arguments that are not allowed, a model whose costs cannot be determined, or metrics that
            cannot exist. For metrics of your own this may only show after the first evaluation, whose results are
            written nonetheless.
        DependencyError: when a package of the latency back end is missing.
    """

    def __init__(self, runner: Any, dataloader: DataLoader | dict, evaluator: Evaluator | dict | list,
                 subnets: Sequence[str | Mapping[str, Any]] = ('max', 'min'), calib_bn: bool | str = 'both',
                 image_size: Any = None, latency: Mapping[str, Any] | None = LATENCY,
                 metric1: str | None = None, metric2: str | None = None, fp16: bool = False,
                 interpolation_type: str = 'bicubic') -> None:
        self._key = f'{stage_of(runner, dataloader)}_cfg'
        self._amounts = SubnetCosts(runner.model, image_size, None, self._key)
        self.conditions: dict[str, Any] = {}  # of the latency
        self.latency = None if latency is None else self._read_latency(latency, runner)
        check_options(self._key, locals(), dict(metric1=METRIC_NAME, metric2=METRIC_NAME))
        self.metric1, self.metric2 = metric1, metric2
        super().__init__(runner, dataloader, evaluator, subnets, calib_bn, fp16,
                         None if is_one_size(image_size) else image_size, interpolation_type)
        self.subnets = {_name(own): own.subnet for own in self.evals}
        self.costs = {subnet: self._amounts.cost_model(subnet) for subnet in self.subnets.values()}
        self.latencies: dict[Subnet, Latency] | None = None  # of the first process, once they are measured
        self._wanted = WantedMetrics({f'{self._key}.metric1': metric1, f'{self._key}.metric2': metric2}, self.scorer)

    def _read_latency(self, latency: Any, runner: Any) -> dict[str, Any]:
        """The settings of the measurement, complete and checked."""
        key = f'{self._key}.latency'
        settings = {**LATENCY, **check_keys(latency, key, list(LATENCY))}
        if runner.cfg.get('model') is None:
            raise must_be(key, 'None where the Runner has no config of the model, from which the exported networks are '
                          'built', dict(latency))
        with errors_below(key):
            integer(1).check(settings['batch_size'], 'batch_size')
            backend = build_backend(settings['backend'], settings['device'], settings['threads'])
        self.conditions = dict(batch_size=settings['batch_size'], **backend.conditions)
        return settings

    def run(self) -> dict[str, float]:
        """Measure and evaluate all subnets.

        Returns:
            dict: ``'<subnet>/<metric>'`` -> value, as for :class:`SubnetValLoop`.

        Raises:
            ConfigError: when there is no ``metric1`` or ``metric2`` among the metrics.
        """
        self.scorer.try_out()  # before the measurement
        with preserved_rng():
            if self.latencies is None:  # once, as weights do not matter
                self.latencies = dict(self._measured()) if self.latency else {}
        self._entries = {name: self._entry(name, subnet, self.costs[subnet], self.latencies.get(subnet))
                         for name, subnet in self.subnets.items()}
        self._write()
        return super().run()

    def _measured(self) -> Iterator[tuple[Subnet, Latency]]:
        """The latencies of the exported networks, measured by the first process while the others wait."""
        for subnet in self.costs:
            if is_main_process():
                size = self._amounts.image_size(subnet)
                plain = MODELS.build(subnet_config(self.runner.cfg.model, self.runner.model, subnet, size))
                yield subnet, measure_latency(plain, size, **(self.latency or {}))
            barrier()  # after each of them: processes that wait too long are given up

    def _entry(self, name: str, subnet: Subnet, cost: Cost, timing: Latency | None) -> dict[str, Any]:
        """What ``evaluation.json`` says of a subnet, still without metrics."""
        return dict(
            name=name, number=json_number(self._amounts.space.index(subnet)), subnet_settings=subnet.to_dict(),
            image_size=list(self._amounts.image_size(subnet)), macs=cost.macs, ops=cost.ops, params=cost.params,
            modules={part: amounts._asdict() for part, amounts in cost.modules.items()},
            latency=timing and dict(median=timing.median, iqr=timing.iqr, samples=timing.samples),
            metrics=None, metrics_calib=None)

    def _record(self, subnet_eval: SubnetEval, metrics: Mapping[str, float]) -> None:
        super()._record(subnet_eval, metrics)
        key = 'metrics_calib' if subnet_eval.calib_bn else 'metrics'
        self._entries[_name(subnet_eval)][key] = json_metrics(metrics)
        self._write()
        try:
            first = self._wanted.see(number_metrics(metrics))
        except ConfigError as error:
            raise ConfigError(f'{error}; what was evaluated is in {self._file()}') from None
        self.metric1 = self.metric1 or first

    def _file(self) -> Path:
        return Path(self.runner.log_dir, 'evaluation.json')

    @master_only
    def _write(self) -> None:
        """Write everything that is known; the file is replaced when the new one is complete."""
        write_json(self._file(), dict(
            checkpoint=self.runner._load_from, iter=self.scorer.iteration, latency_conditions=self.conditions or None,
            subnets=list(self._entries.values())))

    @master_only
    def _report(self, results: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> None:
        """Log one table, one line per subnet."""
        columns = [(name, calib_bn) for name in dict.fromkeys([self.metric1, self.metric2]) if name
                   for calib_bn in sorted({own.calib_bn for own in self.evals})]
        sizes, latencies = self._amounts.space.image_sizes, self.latencies or {}
        rows = [['subnet', *['image size'] * (len(sizes) > 1), 'MACs', 'parameters', *['latency ms'] * bool(latencies),
                 *(name + ', calibrated' * calib_bn for name, calib_bn in columns)]]
        evals = {(_name(own), own.calib_bn): own.name for own in self.evals}
        for name, subnet in self.subnets.items():
            cost, latency = self.costs[subnet], latencies.get(subnet)
            values = [format_metric(plain_metrics(results[evals[name, calib_bn]]).get(metric, 0.), 3)
                      for metric, calib_bn in columns]
            size = '{}x{}'.format(*self._amounts.image_size(subnet))
            rows.append([name, *[size] * (len(sizes) > 1), format_macs(cost.macs), format_params(cost.params),
                         *([f'{latency.median:.2f}'] if latency else []), *values])
        conditions = [f'image size {sizes[0][0]}x{sizes[0][1]}'] if len(sizes) == 1 else []
        conditions += [f'{name.replace("_", " ")} {value}' for name, value in self.conditions.items()]
        self.runner.logger.info(f'Subnets ({self.scorer.stage}), written to {self._file()}\n{AsciiTable(rows).table}\n'
                                f'{", ".join(conditions)}')


def _name(subnet_eval: SubnetEval) -> str:
    """The name of the subnet, without the mark of calibration."""
    return subnet_eval.name.removesuffix('_calib') if subnet_eval.calib_bn else subnet_eval.name
