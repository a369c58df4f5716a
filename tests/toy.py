"""A supernet that trains in milliseconds, data for it, and a Runner around both."""
import copy
import itertools

import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseDataPreprocessor, BaseModel, is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from mmbignas.evaluation import BNCalibrationHook
from mmbignas.ops import DynamicBatchNorm2d, DynamicConv2d, DynamicLinear
from mmbignas.space import ModuleSpace
from mmbignas.supernet import Supernet
from mmbignas.supernet.calibration import calibrate_bn

NUM_CLASSES = 5
_numbers = itertools.count()


class ToyBackbone(nn.Module):
    """One to three blocks of 4, 6 or 8 channels, with kernels of 1 or 3."""

    def __init__(self, drop=0.):
        super().__init__()
        self.search_space = ModuleSpace(
            dict(depth=dict(space=dict(min=[1], max=[3], stride=1)),
                 out_channel=dict(space=dict(min=[4], max=[8], stride=2)),
                 kernel_size=dict(space=dict(min=[1], max=[3], stride=2), sample_strategy='block_wise')),
            num_stages=1, key='ToyBackbone')
        self.blocks = nn.ModuleList()
        for index in range(3):
            self.blocks.append(nn.Sequential(DynamicConv2d(8 if index else 3, 8, 3, padding=1), DynamicBatchNorm2d(8)))
        self.drop = nn.Dropout(drop)

    def apply_subnet(self, settings):
        values = self.search_space.blocks(settings)[0]
        for index, block in enumerate(self.blocks):
            block.is_active = index < len(values)
        for block, value in zip(self.blocks, values):
            block[0].active_out_channels, block[0].active_kernel_size = value['out_channel'], value['kernel_size']

    def forward(self, x):
        for block in self.blocks:
            if getattr(block, 'is_active', True):
                x = F.relu(block(x))
        return self.drop(x)


class ToyPreprocessor(BaseDataPreprocessor):
    """Normalises; doing it twice would be seen in the losses."""

    calls = 0

    def forward(self, data, training=False):
        self.calls += 1
        data = self.cast_data(data)
        return {**data, 'inputs': data['inputs'] * 2 - .5}


class ToyModel(BaseModel):
    """A classifier with two losses and one figure that is none; ``spare`` takes part in nothing."""

    def __init__(self, drop=0., seed=0):
        super().__init__(ToyPreprocessor())
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.backbone, self.head, self.spare = ToyBackbone(drop), DynamicLinear(8, NUM_CLASSES), nn.Linear(2, 2)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        logits = self.head(self.backbone(inputs).mean((2, 3)))
        if mode == 'loss':
            return dict(loss_cls=F.cross_entropy(logits, data_samples), loss_norm=logits.square().mean(),
                        accuracy=(logits.argmax(1) == data_samples).float().mean())
        if mode == 'predict':
            return [dict(logits=own, label=int(label)) for own, label in zip(logits, data_samples)]
        return logits


class ToyDataset(Dataset):
    """Fixed random images of random classes."""

    metainfo = dict(classes=tuple('abcde'))

    def __init__(self, size, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.rand(size, 3, 6, 6, generator=generator)
        self.labels = torch.randint(NUM_CLASSES, (size, ), generator=generator)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return dict(inputs=self.images[index], data_samples=self.labels[index])


class ToyMetric(BaseMetric):
    """Accuracy and mean log-likelihood."""

    default_prefix = 'toy'

    def process(self, data_batch, data_samples):
        self.results += [(sample['logits'].double(), sample['label']) for sample in data_samples]

    def compute_metrics(self, results):
        logits, labels = torch.stack([own for own, _ in results]), torch.tensor([label for _, label in results])
        return dict(accuracy=float((logits.argmax(1) == labels).double().mean()),
                    likelihood=-float(F.cross_entropy(logits, labels)))


class TellingMetric(BaseMetric):
    """One metric more or less, by turns, as of a detector that finds nothing."""

    default_prefix = 'coco'

    def __init__(self, turns):
        super().__init__()
        self.turns, self.count = turns, 0

    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        self.count += 1
        return self.turns[self.count - 1]


class RecordingOptimWrapper(OptimWrapper):
    """Keeps the model's state and the gradients before each step, and counts the clippings.

    A :class:`PassRecorder` tells it the model.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.states, self.gradients, self.clips = [], [], 0

    def step(self, **kwargs):
        self.states.append(copy.deepcopy(self.model.state_dict()))
        self.gradients.append({name: None if parameter.grad is None else parameter.grad.clone()
                               for name, parameter in self.model.named_parameters()})
        super().step(**kwargs)

    def _clip_grad(self):
        self.clips += 1
        super()._clip_grad()


class PassRecorder(Hook):
    """Keeps what each pass trained: iteration, name and settings."""

    def __init__(self):
        self.passes = []

    def before_train(self, runner):
        if isinstance(runner.optim_wrapper, RecordingOptimWrapper):
            runner.optim_wrapper.model = runner.model.module if is_model_wrapper(runner.model) else runner.model

    def before_subnet_forward(self, runner, subnet_pass):
        self.passes.append(subnet_pass)


class ToyRunner(Runner):
    """A Runner that does not spend a second on finding out about the machine."""

    def _log_env(self, env_cfg):
        pass


def dataloader(size, batch_size=6, endless=False, seed=0):
    """A dataloader's config; without shuffling, so that :func:`train_batches` knows what it yields."""
    return dict(dataset=ToyDataset(size, seed), batch_size=batch_size, num_workers=0,
                sampler=dict(type='InfiniteSampler' if endless else 'DefaultSampler', shuffle=False),
                collate_fn=dict(type='default_collate'))


def build_runner(work_dir, model=None, *, hooks=(), train_cfg=None, batches=4, batch_size=6, val_cfg=None,
                 test_cfg=None, metric=None, optim_wrapper=None, seed=0, default_hooks=None, **kwargs):
    """A Runner that trains a toy supernet by the sandwich rule; ``train_cfg`` and the like change the defaults."""
    train_cfg = {'type': 'mmbignas.SandwichTrainLoop', **(train_cfg or {})}
    if 'max_iters' not in train_cfg:
        train_cfg.setdefault('max_epochs', 1)
    arguments = dict(
        model=ToyModel() if model is None else model,
        work_dir=str(work_dir),
        train_dataloader=dataloader(batches * batch_size, batch_size, 'max_iters' in train_cfg),
        train_cfg=train_cfg,
        optim_wrapper={**dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=.1, momentum=.9)),
                       **(optim_wrapper or {})},
        custom_hooks=list(hooks),
        default_hooks={**dict(checkpoint=None, timer=None), **(default_hooks or {})},
        randomness=seed if isinstance(seed, dict) else dict(seed=seed),
        log_level='ERROR',
        default_scope='mmdet',
        experiment_name=f'toy{next(_numbers)}')
    for name, cfg in (('val', val_cfg), ('test', test_cfg)):
        if cfg is not None:
            arguments.update({f'{name}_dataloader': dataloader(10, 4, seed=1),
                              f'{name}_evaluator': [metric or ToyMetric()],
                              f'{name}_cfg': {**dict(type='mmbignas.SubnetValLoop', calib_bn=False), **cfg}})
    arguments.update(kwargs)
    return ToyRunner(**arguments)


def train_batches(count=4, batch_size=6):
    """The batches that :func:`build_runner` trains on in each epoch."""
    dataset = ToyDataset(count * batch_size)
    return [dict(inputs=dataset.images[start:start + batch_size].clone(),
                 data_samples=dataset.labels[start:start + batch_size].clone())
            for start in range(0, len(dataset), batch_size)]


def calibration():
    """A calibration hook with twelve images."""
    return BNCalibrationHook(12, dataloader(24))


def calibration_batches():
    """The batches of :func:`calibration`, in the order of its fixed choice."""
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))[:12]
    dataset = ToyDataset(24)
    return [dict(inputs=dataset.images[own], data_samples=dataset.labels[own]) for own in order.split(6)]


def expected_metrics(model, subnet, calibrate):
    """Metrics of a subnet, from a copy of the model and the whole data set in one batch."""
    model, dataset = copy.deepcopy(model).eval(), ToyDataset(10, seed=1)
    Supernet(model).apply(subnet)
    if calibrate:
        calibrate_bn(model, calibration_batches())
    with torch.no_grad():
        logits = model.eval()(dataset.images * 2 - .5).double()
    likelihood = logits.log_softmax(1)[torch.arange(10), dataset.labels].mean().item()
    return {'toy/accuracy': (logits.argmax(1) == dataset.labels).double().mean().item(), 'toy/likelihood': likelihood}


def losses_of(model, batch, subnet):
    """The losses of one subnet on a raw batch, of a copy of the model, with the copy."""
    model = copy.deepcopy(model).train()
    model.zero_grad()
    Supernet(model).apply(subnet)
    return model, model(**model.data_preprocessor(batch, True), mode='loss')


def gradients_of(model, batch, subnet):
    """Name -> gradient of the summed losses of one subnet, ``None`` where there is none."""
    model, losses = losses_of(model, batch, subnet)
    # A detector's loss is a list with an entry a pyramid level.
    terms = [term for name, value in losses.items() if 'loss' in name
             for term in (value if isinstance(value, list) else [value])]
    sum(terms).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def add_gradients(terms, factor=1.):
    """The sum of dicts of gradients, times a factor; ``None`` counts as nothing."""
    total = {}
    for name in terms[0]:
        present = [term[name] for term in terms if term[name] is not None]
        total[name] = sum(present) * factor if present else None
    return total


def assert_gradients_close(first, second):
    assert first.keys() == second.keys()
    for name, gradient in first.items():
        assert (gradient is None) == (second[name] is None), name
        if gradient is not None:
            torch.testing.assert_close(gradient, second[name], rtol=1e-5, atol=1e-6)
