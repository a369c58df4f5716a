"""Where metrics write files, apart for each of several networks."""
from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mmengine.evaluator import BaseMetric

from mmbignas.utils.files import writing

# Attributes of metrics that say where they write, in MMEngine, MMDetection and MMPretrain: outfile_prefix,
# out_file_path, outfile_path, output_dir, save_dir, seg_out_dir, pred_dir, csv_dir, proposals_file, file_path.
OUTPUT = re.compile(r'^(out|save|dump|result|pred_dir|csv|seg_out)|(^|_)(out|output|outfile|save|dump|proposals)_'
                    r'|^file_path$')
FOLDER = re.compile(r'(dir|dirs|folder)$')


def writes_to(metric: BaseMetric) -> list[str]:
    """The attributes of a metric that hold a place to write to."""
    return [name for name, value in vars(metric).items()
            if isinstance(value, (str, Path)) and value and OUTPUT.search(name)]


@contextmanager
def written_apart(metrics: Sequence[BaseMetric], name: str) -> Iterator[None]:
    """Let metrics write into folders called ``name``, beside what they would have written.

    A file ``results/predictions.pkl`` becomes ``results/NAME/predictions.pkl``, and a folder ``results`` becomes
    ``results/NAME``. Else each of several networks would overwrite the files of the one before.

    Args:
        metrics: attributes whose names say that they are places to write to, such as ``outfile_prefix``, are changed
            while the context is open, where they hold a path.
        name: of the network.

    Raises:
        ConfigError: for a folder that cannot be made.
    """
    before = []
    for metric in metrics:
        for attribute in writes_to(metric):
            value = getattr(metric, attribute)
            path, is_folder = Path(value), FOLDER.search(attribute)
            own = path / name if is_folder else path.parent / name / path.name
            with writing(own):
                (own if is_folder else own.parent).mkdir(parents=True, exist_ok=True)
            before.append((metric, attribute, value))
            setattr(metric, attribute, str(own) if isinstance(value, str) else own)
    try:
        yield
    finally:
        for metric, attribute, value in before:
            setattr(metric, attribute, value)
