"""The cost of a subnet is, to the last digit, what MMEngine's analysis says of the exported network."""
from __future__ import annotations

import contextlib
import copy
import random
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.analysis import FlopAnalyzer, get_model_complexity_info
from mmengine.analysis.complexity_analysis import parameter_count
from mmengine.config import Config
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.nn import functional as F

from mmbignas import ConfigError
from mmbignas.cost import CostModel
from mmbignas.models import SearchableBlocks
from mmbignas.ops import DynamicConv2d, DynamicLinear
from mmbignas.space import ModuleSpace, Subnet
from mmbignas.supernet import Supernet, subnet_config
from tests.small_models import big_fpn, big_resnet, big_retina_head, element, retinanet, tower
from tests.supernet.test_outside_module import detector
from tests.toy import ToyModel

ROOT = Path(__file__).parents[2]


def on_meta(config: Any) -> nn.Module:
    """Build without weights."""
    with torch.device('meta'):
        return MODELS.build(copy.deepcopy(config))


def check(config: Any, model: nn.Module, cost_model: CostModel, subnet: Subnet, size: tuple[int, int]) -> None:
    """Compare with MMEngine's analysis of the exported network, as a whole and by child."""
    plain = MODELS.build(subnet_config(config, model, subnet)).eval()
    analyzer = FlopAnalyzer(plain, torch.zeros(1, 3, *size))
    analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    cost = cost_model(subnet)
    operators = analyzer.by_operator()
    assert cost.macs == operators['conv'] + operators['linear'] > 0
    assert cost.ops == analyzer.total() > cost.macs
    parameters = parameter_count(plain)
    assert cost.params == parameters['']
    children = analyzer.by_module_and_operator()
    for name, part in cost.modules.items():
        assert part.ops == sum(children[name].values())
        assert part.macs == children[name]['conv'] + children[name]['linear']
        assert part.params == parameters[name]


def subnets(cost_model: CostModel, count: int, seed: int = 0) -> list[Subnet]:
    rng, space = random.Random(seed), cost_model.space
    return [space.max(), space.min(), *(space.sample(rng) for _ in range(count))]


@pytest.mark.parametrize(('config', 'size', 'count'), [
    ('retinanet_r18_supnet', (768, 1344), 2), ('retinanet_r18_supnet_bccd', (256, 320), 15)])
def test_shipped_detectors_at_full_resolution(config: str, size: tuple[int, int], count: int) -> None:
    model_cfg = Config.fromfile(ROOT / 'configs' / f'{config}.py').model
    model, cost_model = MODELS.build(model_cfg), CostModel(on_meta(model_cfg), [size])
    for subnet in subnets(cost_model, count):
        check(model_cfg, model, cost_model, subnet, size)


SPACES: dict[str, Any] = {
    'kernels by stage': retinanet(),
    'kernels and expand ratios by block, towers apart': retinanet(
        big_resnet(kernel_size=element([3, 3, 3, 3, 3], [5, 5, 5, 5, 5], 2, 'block_wise'),
                   expand_ratio=element([0.5, 0.5, 0.5, 0.5, 0.5], [1, 1, 1, 1, 1], 0.25, 'block_wise'),
                   conv_cfg=dict(type='mmbignas.DynamicConv2d', kernel_transform=True)),
        big_fpn(kernel_size=element([1, 1], [3, 3], 2, 'block_wise')),
        big_retina_head(cls_tower=tower(out_channel=element([8], [24], 8, 'block_wise'),
                                        kernel_size=element([1], [3], 2, 'ordered_block_wise')),
                        reg_tower=tower(out_channel=element([8], [16], 8)))),
    'plain stem, switchable norms': retinanet(
        big_resnet(deep_stem=False, norm_cfg=dict(type='SwitchableBatchNorm2d'), expand_ratio=[1] * 5),
        head=big_retina_head(norm_cfg=dict(type='SwitchableBatchNorm2d'))),
    'head without norms, neck on inputs': retinanet(
        neck=big_fpn(add_extra_convs='on_input', norm_cfg=None), head=big_retina_head(norm_cfg=None)),
    'a backbone from outside, with groups and linear layers': detector(),
}


@pytest.mark.parametrize('name', SPACES)
@pytest.mark.parametrize('size', [(64, 96), (97, 65)])
def test_small_detectors(name: str, size: tuple[int, int]) -> None:
    config = SPACES[name]
    model = MODELS.build(copy.deepcopy(config))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        cost_model = CostModel(on_meta(config), [size])
    for subnet in subnets(cost_model, 6, seed=size[0]):
        check(config, model, cost_model, subnet, size)


def test_functions_at_the_top_of_a_model() -> None:
    """What belongs to no child of the model and costs nothing is no reason to give up looking up blocks."""
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        cost_model = CostModel(ToyModel(), [(6, 6)])
    assert set(cost_model(cost_model.space.min()).modules) == {'backbone', 'head', 'spare'}


def test_figure_of_mmdetections_get_flops() -> None:
    config = SPACES['kernels by stage']
    cost_model = CostModel(on_meta(config), [(320, 240)])
    subnet = cost_model.space.min()
    plain = MODELS.build(subnet_config(config, MODELS.build(copy.deepcopy(config)), subnet)).eval()
    analysed = get_model_complexity_info(plain, None, torch.rand(1, 3, 320, 240), show_table=False, show_arch=False)
    assert (analysed['flops'], analysed['params']) == (cost_model(subnet).ops, cost_model(subnet).params)


def test_several_sizes_are_a_dimension_of_the_space() -> None:
    config = SPACES['kernels by stage']
    model = MODELS.build(copy.deepcopy(config))
    cost_model = CostModel(model, [(64, 64), (64, 96), (128, 128)])
    assert cost_model.space.size == 3 * Supernet(model).space.size
    rng = random.Random(0)
    drawn = [cost_model.space.sample(rng) for _ in range(12)]
    assert {subnet.image_size for subnet in drawn} == {(64, 64), (64, 96), (128, 128)}
    for subnet in drawn:
        check(config, model, cost_model, subnet, subnet.image_size)
    assert cost_model(cost_model.space.max()).macs > cost_model(cost_model.space.min()).macs


def test_the_model_is_left_as_it_is() -> None:
    model = MODELS.build(copy.deepcopy(SPACES['kernels by stage'])).train()
    supernet = Supernet(model)
    supernet.apply(supernet.space.middle())
    state = {name: value.clone() for name, value in model.state_dict().items()}
    calls: list[int] = []
    model.backbone.register_forward_hook(lambda *_: calls.append(1))
    cost_model = CostModel(model, [(64, 64)])
    cost_model(cost_model.space.min())
    assert supernet.current == supernet.space.middle()
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not calls
    model(torch.rand(2, 3, 64, 64), mode='tensor')
    assert calls


# -- modules of a user's own ------------------------------------------------------------------------------------------


class Mixer(nn.Module):
    """A block of operations that have no module of their own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = DynamicConv2d(channels, 8, 3, padding=1, bias=False)
        self.scale = nn.Parameter(torch.ones(1))

    def set_active(self, out_channel: int) -> None:
        self.conv.active_out_channels = out_channel

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x) * self.scale
        n, c, h, w = x.shape
        flat = x.view(n, c, h * w)
        return torch.matmul(flat @ flat.transpose(1, 2), flat).view(n, c, h, w)


class Blocks(nn.Module):
    """One to three blocks of 2 to 8 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.search_space = ModuleSpace(
            dict(depth=element([1], [3], 1), out_channel=element([2], [8], 2)), 1, key='Blocks')
        self.blocks = nn.ModuleList(Mixer(8 if index else 3) for index in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            if getattr(block, 'is_active', True):
                x = F.relu(block(x))
        return x


class OwnBlocks(Blocks, SearchableBlocks):
    """The contract with blocks."""

    def searchable_blocks(self) -> Any:
        for index, block in enumerate(self.blocks):
            yield block, 0, index


class OwnModule(Blocks):
    """The contract without: what it does with its settings is its own affair; here the third block's width is fixed."""

    def apply_subnet(self, settings: Any) -> None:
        for index, block in enumerate(self.blocks):
            block.is_active = index < settings['depth'][0]
            block.set_active(8 if index == 2 else settings['out_channel'][0])


class Reshaping(OwnBlocks):
    """Between its blocks it computes with a number that depends on the settings."""

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return x.reshape(x.shape[0], x.shape[1], -1)[..., None]


class Own(BaseModel):
    """A classifier with a plain neck, group normalisation and a spare layer that no forward pass uses."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(1))
        self.head = DynamicLinear(32, 5)
        self.spare = nn.Linear(7, 7)

    def forward(self, inputs: Tensor, mode: str = 'tensor') -> Tensor:
        x = F.interpolate(self.backbone(inputs), scale_factor=2, mode='bilinear')
        return self.head(F.group_norm(self.neck(x), 1))


class Plain(Own):
    """One subnet of :class:`Own`, of plain layers, written by hand."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__(nn.Sequential())
        for before, width in zip([3, *widths], widths):
            block = Mixer(before)
            block.conv = nn.Conv2d(before, width, 3, padding=1, bias=False)
            self.backbone.append(nn.Sequential(block, nn.ReLU()))
        self.head = nn.Linear(4 * widths[-1], 5)


def check_own(cost_model: CostModel, subnet: Subnet, widths: list[int], ops: bool = True) -> None:
    """Compare with MMEngine's analysis of the network written by hand."""
    plain, cost = Plain(widths), cost_model(subnet)
    analyzer = FlopAnalyzer(plain, torch.rand(1, 3, 20, 12))
    operators = analyzer.by_operator()
    assert operators['matmul'] > 0
    assert cost.macs == operators['conv'] + operators['linear']
    assert cost.params == parameter_count(plain)['']
    assert not ops or cost.ops == analyzer.total()


@pytest.mark.parametrize('backbone', [OwnBlocks, OwnModule, Reshaping])
def test_a_model_of_ones_own(backbone: type) -> None:
    with pytest.warns(UserWarning, match='run as a whole') if backbone is Reshaping else contextlib.nullcontext():
        cost_model = CostModel(Own(backbone()), [(20, 12)])
    assert cost_model.space.size == 12
    for subnet in cost_model.space.traverse():
        depth, width = subnet['backbone']['depth'][0], subnet['backbone']['out_channel'][0]
        widths = [width] * depth
        if backbone is OwnModule and depth == 3:
            widths[2] = 8
        # Reshaping upsamples a view of another shape.
        check_own(cost_model, subnet, widths, ops=backbone is not Reshaping)


class Wrapped(nn.Module):
    """A searchable module inside another, which has a choice of its own: the width of its last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.search_space = ModuleSpace(dict(depth=[1], width=element([4], [8], 4)), 1, key='Wrapped')
        self.inner = OwnBlocks()
        self.last = DynamicConv2d(8, 8, 1, bias=False)

    def apply_subnet(self, settings: Any) -> None:
        self.last.active_out_channels = settings['width'][0]

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inner(x))


def test_searchable_modules_inside_each_other() -> None:
    cost_model = CostModel(Wrapped(), [(20, 12)])
    assert cost_model.space.size == 24
    for subnet in cost_model.space.traverse():
        depth, inner, outer = subnet['inner']['depth'][0], subnet['inner']['out_channel'][0], subnet['']['width'][0]
        macs = 20 * 12 * (27 * inner + (depth - 1) * 9 * inner**2 + inner * outer)
        assert (cost_model(subnet).macs, len(cost_model.calls(subnet))) == (macs, 1)
        assert cost_model(subnet).params == 27 * inner + (depth - 1) * 9 * inner**2 + inner * outer + depth


class Awkward(Own):
    """Holds tensors that are no parameters, and uses a parameter of its own between its parts."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__(backbone)
        self.offset, self.scale = nn.Parameter(torch.full((1,), 2.)), torch.full((1,), 3.)
        self.last = self.offset * 2  # as a module that remembers its last output

    def forward(self, inputs: Tensor, mode: str = 'tensor') -> Tensor:
        return super().forward(inputs * self.scale + self.offset)


def test_tensors_outside_of_units() -> None:
    model = Awkward(OwnBlocks()).half()
    cost_model = CostModel(model, [(20, 12)])
    check = CostModel(Own(OwnBlocks()), [(20, 12)])
    for subnet in cost_model.space.traverse():
        assert cost_model(subnet).macs == check(subnet).macs
        assert cost_model(subnet).params == check(subnet).params + 1
    call = next(call for call in cost_model.calls(subnet) if call.path.endswith('.add'))
    assert torch.equal(call.bind(model.float())(torch.ones(1, 3, 20, 12)), torch.full((1, 3, 20, 12), 3.))


class TwoFaced(OwnBlocks):
    """Says that its blocks go by their own settings, and lets the depth change the width."""

    def apply_subnet(self, settings: Any) -> None:
        super().apply_subnet(settings)
        self.blocks[0].set_active(max(settings['out_channel'][0] // settings['depth'][0], 1))


def test_blocks_that_do_not_keep_the_contract_cost_time_and_not_exactness() -> None:
    with pytest.warns(UserWarning, match='each subnet is run as a whole'):
        cost_model = CostModel(Own(TwoFaced()), [(20, 12)])
    for subnet in cost_model.space.traverse():
        depth, width = subnet['backbone']['depth'][0], subnet['backbone']['out_channel'][0]
        check_own(cost_model, subnet, [max(width // depth, 1), *[width] * (depth - 1)])
    with pytest.raises(ConfigError, match='Own cannot be divided into blocks'):
        cost_model.calls(cost_model.space.max())


class Attention(OwnBlocks):

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x[:, :1, :4, :4].flatten(1, 2)
        return super().forward(x) + self.attention(tokens, tokens, tokens)[0].sum()


def test_attention_costs_what_the_analysis_of_it_says() -> None:
    without, cost_model = CostModel(Own(OwnBlocks()), [(20, 12)]), CostModel(Own(Attention()), [(20, 12)])
    attention, tokens = nn.MultiheadAttention(4, 1), torch.rand(1, 4, 4)
    analyzer = FlopAnalyzer(attention, (tokens, tokens, tokens))
    for subnet in cost_model.space.traverse():
        plain, cost = without(subnet), cost_model(subnet)
        assert cost.macs - plain.macs == analyzer.by_operator()['linear'] == 4 * 4 * 4 * 4
        assert cost.ops - plain.ops == analyzer.total()
        assert cost.params - plain.params == parameter_count(attention)['']


# -- refusals ---------------------------------------------------------------------------------------------------------


class Hidden(Own):

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__(backbone)
        self.auxiliary = DynamicLinear(4, 4)


class Undecided(OwnBlocks):

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.sum() > 0 else x


@pytest.mark.parametrize(('model', 'message'), [
    (Hidden(OwnBlocks()), 'the size of auxiliary is not known'),
    (Own(Undecided()), r'model: .* cannot be computed from the shape of one image of \[20, 12\] pixels'),
    (nn.Linear(2, 2), 'Linear has no searchable module'),
])
def test_models_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CostModel(model, [(20, 12)])


def test_sizes_and_subnets_refused() -> None:
    model = Own(OwnBlocks())
    with pytest.raises(ConfigError, match=r'image_size must be a non-empty list of .*, got \[\]'):
        CostModel(model, [])
    with pytest.raises(ConfigError, match='image_size'):
        CostModel(model, [(20, 0)])
    with pytest.raises(ConfigError, match=r'image_size must be one of \[\[20, 12\]\], got \[20, 20\]'):
        CostModel(model, [(20, 12)])(Subnet(Supernet(model).space.max(), (20, 20)))
    with pytest.raises(ConfigError, match='backbone is missing'):
        CostModel(model, [(20, 12)])(Subnet({}))
    with pytest.raises(ConfigError, match=r'backbone.depth must be one of .* in stage 0, got 4'):
        CostModel(model, [(20, 12)])(Subnet({'backbone': dict(depth=(4,), out_channel=(8,))}))
    with pytest.raises(ConfigError, match=r'backbone.depth must be one of .* in stage 0, got 4'):
        CostModel(model, [(20, 12)]).calls(Subnet({'backbone': dict(depth=(4,), out_channel=(8,))}))
    with pytest.raises(ConfigError, match=r'image_size must be one of \[\[20, 12\], \[20, 20\]\], got None'):
        CostModel(model, [(20, 12), (20, 20)])(Supernet(model).space.max())
    cost_model = CostModel(model, [(20, 12)])
    settings = cost_model.space.max().to_dict()
    settings['backbone']['out_channel'] = [7]
    with pytest.raises(ConfigError, match=r'backbone.out_channel must be one of \[2, 4, .* in stage 0, got 7'):
        cost_model(Subnet(settings))
