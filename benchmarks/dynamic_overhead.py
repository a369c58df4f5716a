"""What a supernet costs more than its subnets as ordinary networks, in forward and backward pass.

    python benchmarks/dynamic_overhead.py

The floor is ``subnet_config`` of each subnet, written as a config and built of plain torch layers; see ``overhead.py``
for what is measured. Two images of 256x448; the backbone of RetinaNet-R18 (loss: the sum of its outputs), and the
whole detector in mode ``loss`` with four boxes an image.
"""
from __future__ import annotations

from collections.abc import Mapping

import common
from overhead import Loss, check_losses, detector_loss, measure, sandwich
from torch import nn

from mmbignas.space import Subnet
from mmbignas.supernet import Supernet, subnet_config, subnet_state_dict

HEIGHT, WIDTH, BATCH_SIZE = 256, 448, 2
BARS = dict(sandwich=1.03, subnet=1.08)


def backbone_loss(data: Mapping) -> Loss:
    """Sum of the backbone's outputs."""
    return lambda model: sum(output.sum() for output in model.backbone(data['inputs']))


def plain_twin(model: nn.Module, subnet: Subnet) -> nn.Module:
    """The subnet as an ordinary network, in train mode."""
    plain = common.build_detector(subnet_config(common.Config.fromfile(common.DETECTOR_CONFIG).model, model, subnet))
    plain.load_state_dict(subnet_state_dict(model, plain))
    return plain


def main() -> None:
    """Measure the backbone and the detector."""
    model = common.build_detector()
    supernet = Supernet(model)
    subnets = sandwich(supernet)
    twins = {key: plain_twin(model, subnet) for key, subnet in subnets.items()}
    data = model.data_preprocessor(common.synthetic_batch(HEIGHT, WIDTH, BATCH_SIZE), True)
    figures, details = [], {}
    for name, loss in dict(detector=detector_loss(data), backbone=backbone_loss(data)).items():
        check_losses(loss, supernet, subnets, twins)
        new_figures, new_details = measure(name, loss, supernet, subnets, twins, BARS)
        figures += new_figures
        details.update(new_details)
    common.report('dynamic_overhead', figures, seconds_plain_supernet=details)


if __name__ == '__main__':
    main()
