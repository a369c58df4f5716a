"""Files that metrics write for each of several subnets: none replaces another's."""
from __future__ import annotations

import inspect
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric, DumpResults

from mmbignas.errors import ConfigError
from mmbignas.utils.output_paths import OUTPUT, written_apart
from tests.evaluation.test_sample_accuracy_loop import lines_of, runner_for
from tests.toy import ToyMetric

# Arguments of the libraries' metrics by which they write files; the others with such words in their names do not.
WRITES = {'outfile_prefix', 'out_file_path', 'outfile_path', 'output_dir', 'proposals_file', 'save_dir', 'csv_dir',
          'file_path'}
READS = {'ann_file', 'ann_path', 'seg_prefix', 'file_client_args', 'gt_dir', 'pred_file', 'image_set_file', 'data_dir',
         'collect_dir', 'keep_gt_json', 'keep_results', 'format_only', 'dump_matches', 'nproc', 'img_prefix'}


class WritingMetric(ToyMetric):
    """Somebody's own, which writes while it processes and when it computes."""

    def __init__(self, result_path: Any, save_folder: Path) -> None:
        super().__init__()
        self.result_path, self.save_folder, self.data_root = result_path, save_folder, 'data'
        self.iou_thrs, self.out = np.arange(3), None

    def process(self, data_batch: Any, data_samples: Any) -> None:
        super().process(data_batch, data_samples)
        (self.save_folder / 'batch.txt').write_text(str(len(self.results)))

    def compute_metrics(self, results: Any) -> dict[str, float]:
        metrics = super().compute_metrics(results)
        Path(self.result_path).write_text(json.dumps(metrics))
        return metrics


def test_each_subnet_of_a_test_has_files_of_its_own(tmp_path: Path) -> None:
    dump = DumpResults(str(tmp_path / 'all.pkl'))
    own = WritingMetric(str(tmp_path / 'own' / 'a.json'), tmp_path / 'folder')
    runner = runner_for(tmp_path, loop='EvaluateSubnetLoop', subnets=['max', 'min'], calib_bn='both', latency=None)
    runner._test_evaluator = [dump, own]
    metrics = runner.test()
    for name in ('max', 'max_calib', 'min', 'min_calib'):
        results = pickle.loads((tmp_path / name / 'all.pkl').read_bytes())
        right = sum(int(sample['logits'].argmax()) == sample['label'] for sample in results) / len(results)
        assert len(results) == 10 and right == pytest.approx(metrics[f'{name}/toy/accuracy'])
        written = json.loads((tmp_path / 'own' / name / 'a.json').read_text())
        assert written['accuracy'] == metrics[f'{name}/toy/accuracy']
        assert (tmp_path / 'folder' / name / 'batch.txt').read_text() == '10'
    assert not list(tmp_path.glob('*.pkl')) and not list((tmp_path / 'own').glob('*.json'))
    assert (dump.out_file_path, own.result_path) == (str(tmp_path / 'all.pkl'), str(tmp_path / 'own' / 'a.json'))
    assert (own.save_folder, own.data_root) == (tmp_path / 'folder', 'data')


def test_a_single_network_writes_where_it_was_told(tmp_path: Path) -> None:
    runner = runner_for(tmp_path, loop='SubnetValLoop', subnets=['max'], calib_bn=False, image_size=None)
    runner._test_evaluator = [DumpResults(str(tmp_path / 'all.pkl'))]
    runner.test()
    assert len(pickle.loads((tmp_path / 'all.pkl').read_bytes())) == 10


def test_each_subnet_of_a_sample_has_files_of_its_own(tmp_path: Path) -> None:
    """And the trial of the metrics on a few images leaves none."""
    runner = runner_for(tmp_path, subnet_count=3, metric1='toy/accuracy')
    runner._test_evaluator = [DumpResults(str(tmp_path / 'out' / 'all.pkl')), ToyMetric()]
    runner.test()
    assert {path.relative_to(tmp_path / 'out').as_posix() for path in (tmp_path / 'out').rglob('*.pkl')} == {
        f'subnet{line["number"]}/all.pkl' for line in lines_of(tmp_path)}


def test_all_places_that_the_libraries_metrics_write_to() -> None:
    """An argument that sounds like a place is known as one that is written to, or as one that is read."""
    kinds = [kind for registry in (METRICS, *METRICS.children.values(), METRICS.parent or METRICS)
             for kind in registry.module_dict.values() if inspect.isclass(kind) and issubclass(kind, BaseMetric)]
    assert len(kinds) > 20
    names = {name for kind in kinds for own in kind.__mro__ if issubclass(own, BaseMetric)
             for name in inspect.signature(own.__init__).parameters
             if any(word in name for word in ('file', 'path', 'dir', 'out', 'save', 'dump'))}
    assert names - WRITES - READS == set()
    assert all(OUTPUT.search(name) for name in WRITES | {'pred_dir', 'seg_out_dir'})
    assert not any(OUTPUT.search(name) for name in READS - {'dump_matches'})


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('x')
    metric = DumpResults(str(tmp_path / 'file' / 'all.pkl'))
    with pytest.raises((ConfigError, NotADirectoryError)), written_apart([metric], 'max'):
        pass
