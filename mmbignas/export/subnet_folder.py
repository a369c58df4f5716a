"""From a supernet's checkpoint to a subnet as a folder that can be shipped."""
from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from torch import Tensor, nn

from mmbignas.cost import Cost, CostModel
from mmbignas.data import is_one_size, read_image_sizes
from mmbignas.data.calibration_images import CalibrationImages
from mmbignas.data.check_data import check_classes
from mmbignas.data.fixed_images import count_images
from mmbignas.data.pipeline_size import interpolation_of, sized_model_config
from mmbignas.data.resizing import at_resolution
from mmbignas.elastic import cut
from mmbignas.elastic.cutting import CUT, STANDALONE_CUT
from mmbignas.elastic.stock_sizes import stock_sizes
from mmbignas.errors import MismatchError
from mmbignas.export.comparison import compare_raw
from mmbignas.export.plain_config import needs_package, plain_run_config
from mmbignas.space import ImageSize, Subnet, json_number
from mmbignas.supernet import (
    Checkpoint,
    calibrate_bn,
    image_channels,
    load_weights,
    read_checkpoint,
    subnet_config,
    subnet_state_dict,
)
from mmbignas.supernet.build import build_model, load_supernet
from mmbignas.supernet.check_widths import check_widths
from mmbignas.supernet.forward_inputs import forward_inputs
from mmbignas.supernet.hashes import model_hash, space_hash
from mmbignas.utils.files import check_new_folder, file_hash, new_folder
from mmbignas.utils.identity import config_hash
from mmbignas.utils.models import tensors_in
from mmbignas.utils.rules import must_be
from mmbignas.utils.sealed_files import save_sealed
from mmbignas.version import __version__

CONFIG, CHECKPOINT, CERTIFICATE = 'config.py', 'checkpoint.pth', 'certificate.json'
BUILDER = 'subnet_builder.py'  # of the network that is cut out of an elastic one
IMPORT = """# {builder}, beside this file, builds the network.
import sys

sys.path.append({folder!r})

"""
SMALL_INPUTS = ((2, 64, 64), (1, 96, 160), (3, 64, 128))  # images, height, width


class SubnetExporter:
    """Cuts subnets out of one trained supernet, each into a folder of its own.

    A folder holds ``config.py``, an ordinary config with numbers in place of spaces and MMEngine's own loops;
    ``checkpoint.pth``, the sliced weights with the meta data of the source; and ``certificate.json``: what is in it,
    what it costs, where it comes from, with hashes of weights, space and config, and by how much the outputs of the
    written network differ from those of the supernet with the subnet applied. For an elastic network, the config is
    that of the stock network cut to the subnet's shapes, and ``subnet_builder.py`` beside it cuts it. This package need
    not be installed then, unless something else in the config comes from it. A subnet with an image size of its own
    sees images of that size, see :func:`~mmbignas.data.resizing.resized_data_preprocessor`.

    Args:
        cfg: config of the supernet's run.
        checkpoint: its checkpoint.
        image_size: ``[height, width]`` in pixels, of the images that MACs are counted for; a list of such sizes to
            choose from where the supernet was trained in several. With a list of a single one, all subnets see images
            of that size.
        calibration: calibrates the BN statistics of each subnet first; ``None`` leaves those of the supernet, which
            suit no subnet.
        weights: ``ema`` or ``training``, of a run with ``EMAHook``.
        log: is told what is going on.

    Attributes:
        space: the subnets that can be exported.

    Raises:
        ConfigError: for a checkpoint that cannot be read or is of another architecture, or a model that cannot be
            handled.
    """

    def __init__(self, cfg: Config, checkpoint: str | Path, image_size: Sequence[Any],
                 calibration: CalibrationImages | None = None, weights: str | None = None,
                 log: Callable[[str], Any] = print) -> None:
        self.cfg, self.calibration, self.log = cfg, calibration, log
        self.checkpoint: Checkpoint = read_checkpoint(checkpoint, weights)
        check_classes(cfg, self.checkpoint)
        self.supernet = load_supernet(cfg, self.checkpoint)
        self.model: nn.Module = self.supernet.model
        self._weights = model_hash(self.model)  # before any calibration
        sizes = read_image_sizes(self.model, image_size, 'image_size')
        check_widths(self.supernet, sizes[0])
        self._only_size = None if len(sizes) > 1 or is_one_size(image_size) else sizes[0]
        self.cost_model = CostModel(self.model, sizes)
        self.space = self.cost_model.space

    def export(self, subnet: Subnet, out: str | Path) -> dict[str, Any]:
        """Write the folder of one subnet.

        Args:
            subnet: a canonical subnet of :attr:`space`.
            out: the folder. It appears when it is complete and checked.

        Returns:
            dict: the certificate.

        Raises:
            ConfigError: for a folder that :func:`check_export_folder` refuses or that cannot be made, or weights whose
                outputs are not finite.
            MismatchError: when the written network computes something else than the supernet.
        """
        check_export_folder(out)
        with new_folder(out) as aside:
            self.supernet.apply(subnet)
            if self.calibration is not None:
                self._calibrate(self.calibration, self._own_size(subnet))
            model_cfg = subnet_config(self.cfg.model, self.model, subnet, self._size(subnet))
            if model_cfg['type'] == CUT:
                model_cfg['type'] = STANDALONE_CUT
            model_cfg = sized_model_config(model_cfg, self.cfg, self.model, self._own_size(subnet))
            plain_cfg = plain_run_config(self.cfg, model_cfg, self._is_elastic)
            self._write(plain_cfg, aside, Path(out).resolve())
            plain = read_back(aside)
            cost = self.cost_model(subnet)
            certificate = self._certificate(subnet, cost, aside)
            certificate['needs_mmbignas'] = needs_package(plain_cfg.to_dict())
            if self._is_elastic:
                certificate['stock_sizes'] = stock_sizes(self.model, self.cfg.model, plain)
            certificate.update(self._compare(plain, self._size(subnet)))
            if sum(parameter.numel() for parameter in plain.parameters()) != cost.params:
                raise MismatchError(f'the exported network must have {cost.params} parameters, as the cost model says')
            (aside / CERTIFICATE).write_text(json.dumps(certificate, indent=2) + '\n', encoding='utf-8')
        return certificate

    def _own_size(self, subnet: Subnet) -> ImageSize | None:
        """Size that the subnet's images are resized to; ``None`` where they stay as they are."""
        return subnet.image_size or self._only_size

    def _size(self, subnet: Subnet) -> ImageSize:
        return subnet.image_size or self.space.image_sizes[0]

    def _calibrate(self, calibration: CalibrationImages, image_size: ImageSize | None) -> None:
        """Calibrate the current subnet; the other subnets' statistics were wrong before and are now."""
        batches = calibration.batches(self.log)
        self.model.to(get_device())
        with at_resolution(self.model, image_size, interpolation_of(self.cfg)):
            calibrate_bn(self.model, batches)
        self.model.cpu()

    @property
    def _is_elastic(self) -> bool:
        """Whether the supernet is a stock network, of which the subnets are cuts."""
        return hasattr(self.model, 'elastic')

    def _write(self, plain_cfg: Config, aside: Path, folder: Path) -> None:
        """Write config and checkpoint to ``aside``, which will be called ``folder``."""
        header = ''
        if plain_cfg.model.type == STANDALONE_CUT:
            imports = plain_cfg.get('custom_imports') or {}
            names = [*imports.get('imports', ()), Path(BUILDER).stem]
            plain_cfg.custom_imports = dict(imports, imports=names, allow_failed_imports=False)
            shutil.copyfile(str(cut.__file__), aside / BUILDER)
            header = IMPORT.format(builder=BUILDER, folder='{{ fileDirname }}')
        (aside / CONFIG).write_text(header + plain_cfg.pretty_text, encoding='utf-8')
        plain = build_model(plain_cfg)
        # The config in a checkpoint is in no folder of its own.
        text = header.replace('{{ fileDirname }}', str(folder)) + plain_cfg.pretty_text
        meta = dict(self.checkpoint.meta, cfg=text)
        save_sealed(dict(meta=meta, state_dict=subnet_state_dict(self.model, plain)), aside / CHECKPOINT)

    def _certificate(self, subnet: Subnet, cost: Cost, folder: Path) -> dict[str, Any]:
        source = dict(config=self.cfg.filename, checkpoint=self.checkpoint.path, weights=self.checkpoint.weights)
        if Path(self.checkpoint.path).is_file():
            source['sha256'] = file_hash(self.checkpoint.path)
        calibration = None
        if self.calibration is not None:
            calibration = dict(num_images=sum(map(count_images, self.calibration.batches())))
        images = None if self.calibration is None else self.calibration.dataloader
        identity = dict(weights=self._weights, space=space_hash(self.space), **{
            part: config_hash(own) for part, own in (('model', self.cfg.model), ('data_preprocessor', self.cfg.get(
                'data_preprocessor')), ('calibration', images)) if own is not None})
        return dict(
            subnet_settings=subnet.to_dict(), number=json_number(self.space.index(subnet)), source=source,
            identity=identity,
            checkpoint=dict(bytes=(folder / CHECKPOINT).stat().st_size, sha256=file_hash(folder / CHECKPOINT)),
            bn_calibration=calibration, image_size=list(self._size(subnet)), macs=cost.macs, ops=cost.ops,
            params=cost.params, modules={name: part._asdict() for name, part in cost.modules.items()},
            versions=dict(mmbignas=__version__, torch=torch.__version__))

    def _compare(self, plain: nn.Module, image_size: ImageSize) -> dict[str, Any]:
        """By how much the outputs of the supernet and of the written network differ, on random images."""
        generator = torch.Generator().manual_seed(0)
        batches = [torch.randn(count, image_channels(self.model), *size, generator=generator)
                   for count, *size in (*SMALL_INPUTS, (1, *image_size))]
        diff, _ = compare_raw(partial(_outputs, self.model), partial(_outputs, plain), batches)
        return dict(inputs=[list(images.shape) for images in batches], max_abs_diff=diff, bit_for_bit=diff == 0)


def read_back(folder: str | Path) -> nn.Module:
    """Build the network of an exported folder from its files, in eval mode."""
    model = build_model(Config.fromfile(str(Path(folder, CONFIG))))
    load_weights(model, read_checkpoint(Path(folder, CHECKPOINT)))
    return model.eval()


def _outputs(model: nn.Module, images: Tensor) -> list[Tensor]:
    """All outputs of a model; of a two-stage detector, those of its RPN, and of its heads for fixed proposals."""
    found: list[Tensor] = []
    heads = [module for name, module in model.named_children() if name == 'rpn_head']
    handles = [head.register_forward_hook(lambda module, args, output: found.extend(tensors_in(output)))
               for head in heads]
    try:
        with forward_inputs(model, images) as inputs:
            return [*tensors_in(model(images, **inputs)), *found]
    finally:
        for handle in handles:
            handle.remove()


def check_export_folder(folder: str | Path) -> None:
    """Make sure that a subnet can be exported to a folder, and lies safely there.

    MMEngine writes the config of a run to its work dir, under the name of the file that it was read from. So a test of
    the exported config must not have the exported folder for its work dir.

    Raises:
        ConfigError: if it exists, or is the work dir that MMEngine's tools choose for the exported config.
    """
    check_new_folder(folder)
    work_dir = Path('work_dirs', Path(CONFIG).stem)
    if Path(folder).resolve().parts[-2:] == work_dir.parts:
        raise must_be('the folder', f'another than {work_dir}, to which tests of the exported {CONFIG} write, such as '
                      'exported/NAME', str(folder))
