"""Are subnets of a supernet the networks that they are exported as, at the same cost? python check.py CONFIG."""
import random
import sys

import torch
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config

from mmbignas.cost import CostModel
from mmbignas.supernet import Supernet, image_channels, subnet_config, subnet_state_dict
from mmbignas.supernet.build import build_model

cfg = Config.fromfile(sys.argv[1])
model, size = build_model(cfg), cfg.test_cfg.image_size
supernet, cost_model = Supernet(model), CostModel(model, [size])
for parameter in model.parameters():  # a value of its own for each, so that no mix-up stays hidden
    parameter.data += 0.1 * torch.randn_like(parameter)
images = torch.randn(8, image_channels(model), *size)
model.train()(images, mode='tensor')  # likewise for the statistics of batch normalisations
model.eval()
space, rng = supernet.space, random.Random(0)
for subnet in [space.max(), space.min(), *(space.sample(rng) for _ in range(10))]:
    supernet.apply(subnet)
    plain = build_model(Config(dict(cfg, model=subnet_config(cfg.model, model, subnet)))).eval()
    plain.load_state_dict(subnet_state_dict(model, plain))
    assert torch.equal(model(images, mode='tensor'), plain(images, mode='tensor')), subnet
    analyzer = FlopAnalyzer(plain, images[:1]).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    params = sum(parameter.numel() for parameter in plain.parameters())
    assert cost_model(subnet)[:3] == (analyzer.by_operator()['conv'] + analyzer.by_operator()['linear'],
                                      analyzer.total(), params), subnet
print(f'12 of {space.size} subnets are equal')
