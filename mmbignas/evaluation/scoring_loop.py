"""What loops that evaluate many subnets have in common: cost and accuracy of one after the other, and the results."""
from __future__ import annotations

import random
import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from mmengine.dist import barrier, broadcast_object_list, is_main_process
from mmengine.evaluator import Evaluator
from torch.utils.data import DataLoader

from mmbignas.analysis.accuracy_sample import AccuracySample, EvaluatedSubnet
from mmbignas.cost import CostModel
from mmbignas.cost.sampling import SubnetSampling
from mmbignas.data import is_one_size, read_image_sizes
from mmbignas.data.fixed_images import with_chosen_images
from mmbignas.dependencies import installed
from mmbignas.errors import ConfigError
from mmbignas.evaluation.brief_finetuning import BriefFinetuning
from mmbignas.evaluation.identity import annotation_hashes, config_hash, dataset_hash, model_hash, space_hash
from mmbignas.evaluation.metrics import WantedMetrics, exact, restricted
from mmbignas.evaluation.results import export_command, predict_others, write_config, write_results
from mmbignas.evaluation.subnet_loop import SubnetEval, SubnetLoop, json_metrics, number_metrics, silence, stage_of
from mmbignas.latency import LatencyPredictor, LatencyTable
from mmbignas.space import Subnet, json_number
from mmbignas.supernet import Supernet
from mmbignas.utils.checks import check_choice, check_count, check_metric_name, errors_below, type_name
from mmbignas.utils.distributed import Alone, buffers_of_the_first
from mmbignas.utils.random_states import preserved_rng
from mmbignas.utils.units import parse_amount

PARALLEL = ('images', 'subnet')


class ScoringLoop(SubnetLoop):
    """Finds out cost and accuracy of many subnets; the base of loops that say which.

    Each subnet is calibrated and evaluated; iteration hooks, such as those that log and draw predictions, are left
    out. Metrics are taken at full precision, also where MMDetection rounds. No detection at all counts as 0. Weights,
    statistics, training flags, the current subnet and the random states (of the CPU) are the same afterwards as before.

    Args:
        runner: the runner.
        dataloader: a dataloader or its config.
        evaluator: an evaluator or its config.
        image_size: ``[height, width]`` in pixels, as the model sees it after padding: what MACs are counted for. A
            list of such sizes makes it a dimension of the space, see
            :func:`~mmbignas.data.resizing.at_resolution`; the data pipeline has to give the largest.
        metric1: name of the metric that makes a subnet good, the more the better, e.g. ``coco/bbox_mAP``; ``None`` for
            the first one.
        metric2: another one to show.
        calib_bn: calibrate the BN statistics of each subnet.
        val_images: evaluate on so many images, a fixed choice that depends on ``seed`` alone; ``None`` for all.
        baseline_flops: MACs of a network to compare with, e.g. ``'20G'``: the best subnets near it are listed.
        large_flops: of a second one.
        lut_path: latency table, from which latencies are predicted.
        sample_with_finetune: train each subnet for a few iterations first, see
            :class:`~mmbignas.evaluation.brief_finetuning.BriefFinetuning`.
        parallel: with several processes, ``images``: all evaluate the same subnet, each its share of the images; or
            ``subnet``: each evaluates subnets of its own.
        predicted_count: predict ``metric1`` of so many other subnets from those that were evaluated, see
            :func:`~mmbignas.evaluation.results.predict_others`; 0 for none.
        seed: of the draws.
        fp16: evaluate in half precision.
        interpolation_type: how images are resized where there are several image sizes.

    Raises:
        ConfigError: for arguments that are not allowed, before data are loaded; for metrics that cannot be there.
    """

    FOLDER: str

    def __init__(self, runner: Any, dataloader: DataLoader | dict, evaluator: Evaluator | dict | list,
                 image_size: Any = None, metric1: str | None = None, metric2: str | None = None, calib_bn: bool = True,
                 val_images: int | None = None, baseline_flops: Any = None, large_flops: Any = None,
                 lut_path: str | None = None, sample_with_finetune: Any = False, parallel: str = 'images',
                 predicted_count: int = 10_000, seed: int = 0, fp16: bool = False,
                 interpolation_type: str = 'bicubic') -> None:
        self.key = f'{stage_of(runner, dataloader)}_cfg'
        self.metric1 = check_metric_name(metric1, f'{self.key}.metric1')
        self.metric2 = check_metric_name(metric2, f'{self.key}.metric2')
        self.calib_bn = check_choice(calib_bn, (True, False), f'{self.key}.calib_bn')
        self.parallel = check_choice(parallel, PARALLEL, f'{self.key}.parallel')
        self.predicted_count = check_count(predicted_count, f'{self.key}.predicted_count', 0)
        self.seed = check_count(seed, f'{self.key}.seed', 0)
        self.val_images = None if val_images is None else check_count(val_images, f'{self.key}.val_images')
        check_choice(fp16, (True, False), f'{self.key}.fp16')
        marks = dict(baseline=baseline_flops, large=large_flops)
        self.marks = {name: parse_amount(value, f'{self.key}.{name}_flops')
                      for name, value in marks.items() if value is not None}
        model = Supernet(runner.model).model
        sizes = read_image_sizes(model, image_size, f'{self.key}.image_size')
        self._only_size = None if len(sizes) > 1 or is_one_size(image_size) else sizes[0]
        self.cost_model = CostModel(model, sizes)
        self.lut_path = lut_path
        self.latency = None if lut_path is None else LatencyPredictor(LatencyTable.load(lut_path), self.cost_model)
        with errors_below(self.key):
            self._prepare_draws()
        self._alone = Alone()
        self._quiet = False  # what calibration and metrics say is the same each time
        self._finetuning = None if sample_with_finetune is False else BriefFinetuning(
            sample_with_finetune, runner, f'{self.key}.sample_with_finetune', self._alone)
        with self._own_world():
            super().__init__(runner, dataloader, evaluator, calib_bn, fp16, interpolation_type)
            self._wanted = WantedMetrics(self._wanted_metrics(), self.evaluator)
            self._wanted.try_out(self)

    @abstractmethod
    def _prepare_draws(self) -> None:
        """Find out, as far as possible before data are loaded, which subnets to evaluate."""

    @abstractmethod
    def _go_through(self, identity: Mapping[str, str]) -> None:
        """Evaluate the subnets, by :meth:`score`, and keep what comes out in :attr:`folder`.

        Args:
            identity: of :meth:`identity`.
        """

    @abstractmethod
    def lines(self) -> list[dict[str, Any]]:
        """What is known of each evaluated subnet, by all processes."""

    @abstractmethod
    def flops_range(self) -> tuple[int | None, int | None]:
        """The fewest and the most MACs that were asked for; ``None`` for no limit."""

    def _wanted_metrics(self) -> dict[str, str]:
        """Place in the config -> name of each metric that has to be there."""
        wanted = dict(metric1=self.metric1, metric2=self.metric2)
        return {f'{self.key}.{key}': name for key, name in wanted.items() if name is not None}

    def _allowed(self, subnet: Subnet) -> bool:
        """Whether a subnet keeps all limits."""
        return True

    @contextmanager
    def _own_world(self) -> Iterator[None]:
        """Work alone where each process has subnets of its own."""
        with self._alone() if self.parallel == 'subnet' else ExitStack():
            yield

    def _prepared(self, dataloader: Any) -> Any:
        """The dataloader with the chosen images, and with workers that live as long as the loop."""
        dataloader, self._indices = with_chosen_images(dataloader, self.val_images, self.seed, f'{self.key}.val_images')
        return dataloader

    def _version(self, identity: Mapping[str, str]) -> str:
        """What tells the validations of a training apart, of one that is repeated too; '' in a test."""
        iteration = self._iteration()
        return '' if iteration is None else f'iter_{iteration}_{config_hash(identity)[:8]}'

    def identity(self) -> dict[str, str]:
        """Hashes of what the figures depend on."""
        cfg, finetuning = self.runner.cfg, None
        if self._finetuning is not None:
            finetuning = self._finetuning.max_iters, self._finetuning.optim_wrapper
        hooks = [hook for hook in cfg.get('custom_hooks') or () if type_name(hook) == 'BNCalibrationHook']
        trained_on = [hooks, cfg.get('train_dataloader')] if self.calib_bn or finetuning else None
        resizes = self._only_size is not None or len(self.cost_model.space.image_sizes) > 1
        datasets = [cfg.get(f'{self.stage}_dataloader'), cfg.get(f'{self.stage}_evaluator'), trained_on]
        return dict(
            supernet=model_hash(self.supernet.model), space=space_hash(self.cost_model.space),
            data=config_hash([dataset_hash(self.dataloader.dataset), annotation_hashes(datasets)]),
            evaluation=config_hash([(cfg.get(f'{self.stage}_dataloader') or {}).get('dataset'), finetuning, trained_on,
                                    cfg.get(f'{self.stage}_evaluator'), (cfg.get('model') or {}).get('test_cfg'),
                                    self.calib_bn, self.fp16,
                                    *([self.interpolation, self._only_size] if resizes else [])]))

    def run(self) -> dict[str, float]:
        """Evaluate the subnets, and write the results.

        Returns:
            dict: how many subnets were evaluated, and what the best of them reach.

        Raises:
            ConfigError: for results of something else in the folder, or when there is no ``metric1`` or ``metric2``
                among the metrics.
        """
        stage = self.stage
        self.runner.call_hook(f'before_{stage}')
        self.runner.call_hook(f'before_{stage}_epoch')
        training = {module: module.training for module in self.runner.model.modules()}
        before = self.supernet.current
        self.runner.model.eval()
        try:
            with preserved_rng(), buffers_of_the_first(self.supernet.model):
                identity = self.identity()
                self.folder = Path(self.runner.work_dir, self.FOLDER, self._version(identity))
                self._go_through(identity)
        finally:
            self.supernet.apply(before)
            for module, mode in training.items():
                module.training = mode
        barrier()
        written = [self._write_results() if is_main_process() else {}]
        broadcast_object_list(written)
        metrics = {f'{self.FOLDER}/{name}': value for name, value in written[0].items()}
        self.runner.call_hook(f'after_{stage}_epoch', metrics=metrics)
        self.runner.call_hook(f'after_{stage}')
        return metrics

    def _write_results(self) -> dict[str, float]:
        lines, space = self.lines(), self.cost_model.space
        for line in lines:
            self.check_metrics(line['metrics'])
        sample = AccuracySample([EvaluatedSubnet.from_line(line) for line in lines], self.metric1, self.metric2,
                                self.marks, self.flops_range(), space.size)
        config = self.folder / 'config.py'
        write_config(self.runner.cfg, self.key, config)
        trained_here = self._iteration() is not None  # then load_from is where the training began
        command = export_command(config, None if trained_here else self.runner._load_from)
        return write_results(sample, self.folder, command, self.runner.logger.info, self._predict(sample))

    def _predict(self, sample: AccuracySample) -> dict[str, Any] | None:
        """Predict the accuracy of other subnets in the range."""
        if not self.predicted_count:
            return None
        if not installed('sklearn'):
            self.runner.logger.info('no prediction of other subnets without scikit-learn: pip install '
                                    '"mmbignas[search]"')
            return None
        sampling = SubnetSampling(self.predicted_count, 'random', self.flops_range())
        draws = sampling.draw(self.cost_model, random.Random(self.seed + 1))
        try:
            others = [own.subnet for own in draws if self._allowed(own.subnet)]
        except ConfigError as error:  # so narrow a range that drawing does not meet it
            self.runner.logger.info(f'no prediction of other subnets: {error}')
            return None
        return predict_others(sample, self.cost_model.space, self.costs, others)

    def costs(self, subnet: Subnet) -> dict[str, float]:
        """MACs, parameters and, with a latency table, predicted milliseconds."""
        cost = self.cost_model(subnet)
        return dict(macs=cost.macs, params=cost.params,
                    **({} if self.latency is None else dict(latency_ms=self.latency(subnet))))

    def score(self, subnet: Subnet) -> dict[str, Any]:
        """Calibrate and evaluate a subnet.

        Args:
            subnet: a subnet of the cost model's space.

        Returns:
            dict: all that is known of it, as JSON can hold it.

        Raises:
            ConfigError: when there is no ``metric1`` or ``metric2`` among its metrics.
        """
        begin = time.perf_counter()
        cost, number = self.cost_model(subnet), self.cost_model.space.index(subnet)
        image_size = subnet.image_size or self.cost_model.space.image_sizes[0]
        with ExitStack() as stack:
            for context in (self._own_world(), exact(self.evaluator), self._at_its_size(subnet)):
                stack.enter_context(context)
            if self._quiet:
                stack.enter_context(silence(self.runner.logger))
            if self._indices is not None:
                stack.enter_context(restricted(
                    self.evaluator, self.dataloader.dataset, range(len(self.dataloader.dataset))))
            self.supernet.apply(subnet)
            if self._finetuning is not None:
                stack.enter_context(self._finetuning())
            metrics = self._evaluate(SubnetEval(f'subnet{number}', subnet, self.calib_bn))
        self._quiet = True
        kept = json_metrics({name: metrics[name] for name in number_metrics(metrics)})
        self.check_metrics(kept)
        return dict(number=json_number(number), subnet_settings=subnet.to_dict(), image_size=list(image_size),
                    macs=cost.macs, ops=cost.ops, params=cost.params, latency_ms=self.costs(subnet).get('latency_ms'),
                    metrics=kept, seconds=round(time.perf_counter() - begin, 3), seed=self.seed)

    def check_metrics(self, metrics: Iterable[str]) -> None:
        """Make sure that there are the metrics that the config names; take the first one where it names none.

        Args:
            metrics: names; none at all, as after an evaluation without detections, say nothing.

        Raises:
            ConfigError: listing those that exist.
        """
        first = self._wanted.see(metrics)
        self.metric1 = self.metric1 or first
