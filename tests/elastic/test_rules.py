"""The rules of operations, each in a small network: which groups there are, and that they mean what they say.

The reference is the network itself: permuting a group consistently must not change it, and a narrow subnet must equal
the plain network that was cut to its shapes.
"""
from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmbignas.elastic.planning import traced
from mmbignas.elastic.verification import verified
from tests.elastic.groups import check_groups
from tests.elastic.networks import Toy, images, scrambled


class Net(nn.Module):
    """Layers, and a function of these and an image."""

    def __init__(self, function: Callable[..., Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self.function = function
        self.last = nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.layers, x)


def conv(inputs: int, outputs: int, size: int = 3, **options) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **options)


def squeeze_excite(net, x):
    x = net['a'](x).relu()
    return net['c'](x * net['up'](net['down'](x.mean((2, 3), keepdim=True)).relu()).sigmoid())


def shuffle(net, x):
    x = net['b'](net['a'](x))
    n, c, h, w = x.shape
    return net['c'](x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))


def cross_stage(net, x):
    one, other = net['a'](x).chunk(2, 1)
    return net['c'](torch.cat([other, net['b'](one)], 1))


def halves(net, x):
    x = net['a'](x)
    half = x.shape[1] // 2
    return net['c'](torch.cat([net['b'](x[:, :half]), x[:, half:]], 1))


def attention(net, x):
    tokens = net['a'](x).flatten(2).transpose(1, 2)
    q, k, v = net['q'](tokens), net['k'](tokens), net['v'](tokens)
    mixed = (q @ k.transpose(1, 2)).softmax(-1) @ v
    return net['out'](net['norm'](tokens + mixed)).mean(1)


def layer_scale(net, x):
    x = net['a'](x)
    return net['c'](x + net['b'](x) * net['norm'].weight[:, None, None])


def einsum(net, x):
    x = net['a'](x)
    return net['c'](x * torch.einsum('nchw,ndhw->nc', x, x)[:, :, None, None])


def upsampled(net, x):
    x = net['a'](x)
    return net['c'](torch.cat([F.interpolate(F.max_pool2d(x, 2), scale_factor=2.0), net['up'](F.avg_pool2d(x, 2))], 1))


def flattened(net, x):
    return net['out'](F.adaptive_avg_pool2d(net['a'](x), 2).flatten(1))


def unfolded(net, x):
    x = net['a'](x)
    n, c, h, w = x.shape
    windows = F.unfold(x, 3, padding=1).view(n, c, 9, h, w)
    return net['c'](windows.amax(2))


def shuffled_pixels(net, x):
    return net['c'](F.pixel_shuffle(net['a'](x), 2))


def standardised(net, x):
    weight = net['a'].weight
    weight = (weight - weight.mean((1, 2, 3), keepdim=True)) / (weight.std((1, 2, 3), keepdim=True) + 1e-5)
    return net['c'](F.conv2d(x, weight, net['a'].bias, padding=1))


def packed(net, x):
    tokens = net['a'](x).flatten(2).transpose(1, 2)
    return net['out'](tokens + net['mha'](tokens, tokens, tokens, need_weights=False)[0]).mean(1)


def pooled(net, x):
    return net['c'](F.adaptive_avg_pool2d(net['a'](x).to(memory_format=torch.channels_last), 1))


def strided(net, x):
    x = net['a'](x).contiguous()
    return net['c'](x.as_strided((x.shape[0], x.shape[1], 4, 4), (x.stride(0), x.stride(1), 8, 1)))


# Name -> function, layers, sizes of the groups that remain after verification.
CASES = {
    'residual': (lambda net, x: net['c'](net['b'](net['a'](x)).relu() + net['a'](x)),
                 dict(a=conv(3, 8), b=conv(8, 8), c=conv(8, 2)), [8]),
    'batch norm': (lambda net, x: net['c'](net['norm'](net['a'](x))),
                   dict(a=conv(3, 8), norm=nn.BatchNorm2d(8), c=conv(8, 2)), [8]),
    'group norm': (lambda net, x: net['c'](net['norm'](net['a'](x))),
                   dict(a=conv(3, 12), norm=nn.GroupNorm(4, 12), c=conv(12, 2)), [4]),
    'one group': (lambda net, x: net['c'](net['norm'](net['a'](x))),
                  dict(a=conv(3, 12), norm=nn.GroupNorm(1, 12), c=conv(12, 2)), [12]),
    'depthwise': (lambda net, x: net['c'](net['b'](net['a'](x))),
                  dict(a=conv(3, 8), b=conv(8, 8, groups=8), c=conv(8, 2)), [8]),
    'depthwise, wider': (lambda net, x: net['c'](net['b'](net['a'](x))),
                         dict(a=conv(3, 8), b=conv(8, 16, groups=8), c=conv(16, 2)), [8]),
    'grouped': (lambda net, x: net['c'](net['b'](net['a'](x))),
                dict(a=conv(3, 8), b=conv(8, 16, groups=4), c=conv(16, 2)), [4]),
    'groups of two kinds': (lambda net, x: net['c'](net['norm'](net['b'](net['a'](x)))),
                            dict(a=conv(3, 24), b=conv(24, 24, groups=6), norm=nn.GroupNorm(8, 24), c=conv(24, 2)),
                            [2]),
    'transposed': (lambda net, x: net['c'](net['up'](net['a'](x))),
                   dict(a=conv(3, 8), up=nn.ConvTranspose2d(8, 6, 2, 2), c=conv(6, 2)), [8, 6]),
    'transposed, grouped': (lambda net, x: net['c'](net['up'](net['a'](x))),
                            dict(a=conv(3, 8), up=nn.ConvTranspose2d(8, 12, 2, 2, groups=4), c=conv(12, 2)), [4]),
    'prelu': (lambda net, x: net['c'](net['act'](net['a'](x))),
              dict(a=conv(3, 8), act=nn.PReLU(8), c=conv(8, 2)), [8]),
    'concatenation': (lambda net, x: net['c'](net['norm'](torch.cat([net['a'](x), net['b'](x)], 1))),
                      dict(a=conv(3, 8), b=conv(3, 6), norm=nn.BatchNorm2d(14), c=conv(14, 2)), [8, 6]),
    'squeeze and excite': (squeeze_excite,
                           dict(a=conv(3, 8), down=conv(8, 4, 1), up=conv(4, 8, 1), c=conv(8, 2)), [8, 4]),
    'shuffle': (shuffle, dict(a=conv(3, 8), b=conv(8, 8, groups=2), c=conv(8, 2)), [2]),
    'cross stage': (cross_stage, dict(a=conv(3, 8), b=conv(4, 6), c=conv(10, 2)), [4, 6]),
    'halves': (halves, dict(a=conv(3, 8), b=conv(4, 6), c=conv(10, 2)), [4, 6]),
    'attention': (attention, dict(a=conv(3, 8), q=nn.Linear(8, 6), k=nn.Linear(8, 6), v=nn.Linear(8, 8),
                                  norm=nn.LayerNorm(8), out=nn.Linear(8, 2)), [8, 6]),
    'layer scale': (layer_scale, dict(a=conv(3, 8), b=conv(8, 8), norm=nn.LayerNorm(8), c=conv(8, 2)), [8]),
    'einsum': (einsum, dict(a=conv(3, 8), c=conv(8, 2)), [8]),
    'upsampled': (upsampled, dict(a=conv(3, 8), up=nn.ConvTranspose2d(8, 4, 2, 2), c=conv(12, 2)), [8, 4]),
    'flattened': (flattened, dict(a=conv(3, 8), out=nn.Linear(32, 2)), [8]),
    'unfolded': (unfolded, dict(a=conv(3, 8), c=conv(8, 2)), [8]),
    'shuffled pixels': (shuffled_pixels, dict(a=conv(3, 16), c=conv(4, 2)), [4]),
    'standardised weight': (standardised, dict(a=conv(3, 8), c=conv(8, 2)), [8]),
    'pooled': (pooled, dict(a=conv(3, 8), c=conv(8, 2, 1)), [8]),
    'strided': (strided, dict(a=conv(3, 8), c=conv(8, 2, 1)), []),
    "torch's attention": (packed, dict(a=conv(3, 8), mha=nn.MultiheadAttention(8, 2, batch_first=True),
                                       out=nn.Linear(8, 2)), [2, 4]),
}


@pytest.mark.parametrize('name', CASES)
def test_an_operation(name):
    function, layers, sizes = CASES[name]
    model = scrambled(Toy(Net(function, **copy.deepcopy(layers)))).eval()
    batch, plan = traced(model, images())
    plan = verified(model, plan, batch)
    check_groups(model, plan, batch, sizes)


def literal(net, x):
    x = net['b'](net['a'](x))
    return net['c'](x.view(2, 8, 8, 8) * 2)


def unknown(net, x):
    return net['c'](torch.ops.aten._cummax_helper is not None and net['a'](x).cummax(1)[0])


def test_a_number_in_python_is_found_by_verification_and_named():
    model = Toy(Net(literal, a=conv(3, 4), b=conv(4, 8), c=conv(8, 2)))
    batch, plan = traced(model, images())
    assert len(plan.groups) == 2
    plan = verified(model, plan, batch)
    assert list(plan.groups) == ['net.layers.a']
    reason, = (reason for reason in plan.frozen if 'does not compute with fewer' in reason)
    assert 'RuntimeError' in reason and 'net.layers.b.weight[0]' in plan.frozen[reason]


def test_an_operation_without_a_rule_freezes_its_input_and_is_named():
    model = Toy(Net(unknown, a=conv(3, 8), c=conv(8, 2)))
    _, plan = traced(model, images())
    assert not plan.groups
    assert 'net.layers.a.weight[0]' in plan.frozen['there is no rule for aten::cummax in net']
