"""What the tools export from real runs, and that everything of MMDetection's takes it as it is."""
import json
import re
import runpy
import sys
from importlib.util import find_spec

import pytest
import torch
from mmdet.apis import DetInferencer
from mmengine.config import Config
from mmengine.registry import MODELS

from mmbignas import ConfigError
from mmbignas.supernet import Supernet, load_weights, read_checkpoint
from tests.models.same_network import tensors
from tests.runs import MMDET_TOOLS, ROOT, launch, mim_name, python

pytestmark = pytest.mark.slow

ANALYSIS = MMDET_TOOLS / 'analysis_tools'
TRAIN_ONE = ['--cfg-options', 'train_cfg.max_epochs=1', 'train_cfg.val_begin=9', 'custom_hooks.0.type=EMAHook']


def export(workspace, checkpoint, name, *options):
    """Run the tool; return the folder and what was printed."""
    folder = workspace / name
    output = python('tools/export_subnet.py', workspace / 'config.py', checkpoint, '--image-size', 128, 128, '--out',
                    folder, *options)
    return folder, output


@pytest.fixture(scope='module')
def exported(workspace, whole):
    """The largest subnet, calibrated as the config says."""
    return export(workspace, whole / 'epoch_2.pth', 'work_dirs/exported', '--subnet', 'max')


@pytest.fixture(scope='module')
def predictions(workspace, exported):
    """Those of MMDetection's own test tool, and its output. Its work dir is the default: the folder stays as it is."""
    folder, _ = exported
    file, before = workspace / 'predictions.pkl', contents(folder)
    output = python(MMDET_TOOLS / 'test.py', folder / 'config.py', folder / 'checkpoint.pth', '--out', file,
                    cwd=workspace)
    assert contents(folder) == before
    return file, output


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_the_tool_says_what_it_did(exported):
    folder, output = exported
    assert 'BN statistics: calibrated with 8 images' in output
    assert 'outputs on 4 random batches, supernet and exported network: equal, bit for bit' in output
    assert f'in {folder}: config.py, checkpoint.pth, certificate.json' in output
    assert json.loads((folder / 'certificate.json').read_text())['bn_calibration'] == dict(num_images=8)


def test_mmdetections_own_test_tool(workspace, predictions, tested):
    """The exported network has the accuracy that the calibrated subnet had in the supernet."""
    [expected] = [line['metrics'] for line in tested if line['name'] == 'max_calib']
    scalars = json.loads(next((workspace / 'work_dirs' / 'config').glob('*/*.json')).read_text())
    assert {name: scalars[name] for name in expected} == expected


def test_the_inferencer(exported, workspace):
    folder, _ = exported
    image = next((workspace / 'data' / 'val').iterdir())
    inferencer = DetInferencer(str(folder / 'config.py'), str(folder / 'checkpoint.pth'), device='cpu',
                               show_progress=False)
    [found] = inferencer(str(image))['predictions']
    assert len(found['bboxes']) == len(found['scores']) > 0
    assert inferencer.model.dataset_meta['classes'] == ('circle', 'square', 'triangle')
    with pytest.raises(ConfigError, match='give the config as a file'):  # and not the one in the checkpoint
        DetInferencer(None, str(folder / 'checkpoint.pth'), device='cpu')


def test_get_flops(exported):
    folder, _ = exported
    certificate = json.loads((folder / 'certificate.json').read_text())
    output = python(ANALYSIS / 'get_flops.py', folder / 'config.py', '--num-images', 1)
    flops, params = (float(re.search(rf'{name}: ([0-9.]+)M', output)[1]) for name in ('Flops', 'Params'))
    assert flops == pytest.approx(certificate['ops'] / 1e6, abs=6e-4)
    assert params == pytest.approx(certificate['params'] / 1e6, abs=6e-4)


def test_browse_and_print(exported, workspace):
    folder, _ = exported
    python(ANALYSIS / 'browse_dataset.py', folder / 'config.py', '--not-show', '--show-interval', 0, '--output-dir',
           workspace / 'browsed')
    assert len(list((workspace / 'browsed').iterdir())) == 12
    assert 'mmbignas.BigResNet' in python(MMDET_TOOLS / 'misc' / 'print_config.py', folder / 'config.py')


def test_analyses_of_predictions(exported, predictions, workspace):
    config, (file, output) = exported[0] / 'config.py', predictions
    python(ANALYSIS / 'analyze_results.py', config, file, workspace / 'analysed', '--topk', 1)
    assert list((workspace / 'analysed' / 'good').iterdir())
    python(ANALYSIS / 'confusion_matrix.py', config, file, workspace / 'matrix')
    assert (workspace / 'matrix' / 'confusion_matrix.png').exists()
    own = [line for line in output.splitlines() if 'bbox_mAP_copypaste' in line][-1].split('copypaste')[1]
    assert own in python(ANALYSIS / 'eval_metric.py', config, file)


def test_publish(exported, workspace):
    folder, _ = exported
    python(MMDET_TOOLS / 'model_converters' / 'publish_model.py', folder / 'checkpoint.pth', workspace / 'public.pth')
    [file] = workspace.glob('public-*.pth')
    model = MODELS.build(Config.fromfile(str(folder / 'config.py')).model)
    load_weights(model, read_checkpoint(file))


def test_training_goes_on(exported, workspace):
    """With MMDetection's own tool, and its curves with the tool for logs."""
    folder, run = exported[0], workspace / 'exported_train'
    python(MMDET_TOOLS / 'train.py', folder / 'config.py', '--work-dir', run, '--cfg-options',
           'train_cfg.max_epochs=1', 'train_cfg.val_interval=1', f'load_from={folder}/checkpoint.pth')
    before, after = (torch.load(path)['state_dict'] for path in (folder / 'checkpoint.pth', run / 'epoch_1.pth'))
    assert before.keys() == after.keys()
    assert not torch.equal(before['bbox_head.retina_cls.weight'], after['bbox_head.retina_cls.weight'])
    if find_spec('seaborn'):
        log = next(run.glob('*/vis_data/scalars.json'))
        assert 'average iter time' in python(ANALYSIS / 'analyze_logs.py', 'cal_train_time', log)
        # The forks give the style to matplotlib, which does not know the tool's own default.
        style = [] if mim_name('mmdet') == 'mmdet' else ['--style', 'dark_background']
        python(ANALYSIS / 'analyze_logs.py', 'plot_curve', log, '--keys', 'loss_cls', '--out', workspace / 'curve.png',
               *style)
        assert (workspace / 'curve.png').stat().st_size > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason='the tool asks for CUDA')
def test_benchmark(exported, workspace):
    folder, _ = exported
    assert 'fps' in python(ANALYSIS / 'benchmark.py', folder / 'config.py', '--checkpoint', folder / 'checkpoint.pth',
                           '--task', 'inference', '--max-iter', 4, '--repeat-num', 1, '--work-dir', workspace / 'b')


def check_weights(workspace, folder, checkpoint, weights=None):
    """The exported network computes what the supernet of the checkpoint does, without calibration."""
    model = MODELS.build(Config.fromfile(str(workspace / 'config.py')).model).eval()
    load_weights(model, read_checkpoint(checkpoint, weights))
    Supernet(model).apply(json.loads((folder / 'certificate.json').read_text())['subnet_settings'])
    plain = MODELS.build(Config.fromfile(str(folder / 'config.py')).model).eval()
    load_weights(plain, read_checkpoint(folder / 'checkpoint.pth'))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        outputs, expected = (tensors(network(images, mode='tensor')) for network in (plain, model))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(outputs, expected, strict=True))


def test_a_run_in_two_processes(workspace):
    run = workspace / 'ddp'
    launch('tools/train.py', workspace / 'config.py', '--launcher', 'pytorch', '--work-dir', run, *TRAIN_ONE[:-1])
    folder, output = export(workspace, run / 'epoch_1.pth', 'from_ddp', '--subnet', 1234, '--calib-images', 0)
    assert 'BN statistics: those of the supernet' in output
    check_weights(workspace, folder, run / 'epoch_1.pth')


def test_a_run_with_averaged_weights(workspace):
    run = workspace / 'ema'
    python('tools/train.py', workspace / 'config.py', '--work-dir', run, *TRAIN_ONE)
    states = []
    for weights in (None, 'ema', 'training'):
        options = [] if weights is None else ['--weights', weights]
        folder, _ = export(workspace, run / 'epoch_1.pth', f'from_{weights}', '--subnet', 'min', '--calib-images', 0,
                           *options)
        check_weights(workspace, folder, run / 'epoch_1.pth', weights)
        states.append(torch.load(folder / 'checkpoint.pth')['state_dict']['bbox_head.retina_cls.weight'])
    assert torch.equal(states[0], states[1]) and not torch.equal(states[1], states[2])


def test_a_run_in_mixed_precision(workspace):
    run = workspace / 'amp'
    # Padded, so that no convolution of stride 2 is given a single pixel: in bfloat16 on a CPU, PyTorch 2.13 then leaves
    # parts of the weights' gradients uninitialised.
    python('tools/train.py', workspace / 'config.py', '--work-dir', run, *TRAIN_ONE[:-1],
           'optim_wrapper.type=Bfloat16OptimWrapper', 'model.data_preprocessor.pad_size_divisor=128')
    assert 'loss_scaler' in torch.load(run / 'epoch_1.pth')['optimizer']
    folder, _ = export(workspace, run / 'epoch_1.pth', 'from_amp', '--subnet', 'middle', '--calib-images', 0)
    check_weights(workspace, folder, run / 'epoch_1.pth')


def refused(monkeypatch, capsys, *arguments):
    """Run the tool in this process; return its error."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, 'argv', ['export_subnet.py', *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path('tools/export_subnet.py', run_name='__main__')
    assert stop.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith('error: ')
    return line.removeprefix('error: ')


def test_what_a_user_can_mend_is_one_line(workspace, whole, monkeypatch, capsys):
    checkpoint, config, folder = whole / 'epoch_2.pth', workspace / 'config.py', workspace / 'refused'
    truncated, wrong = workspace / 'truncated.pth', workspace / 'wrong.yaml'
    truncated.write_bytes(checkpoint.read_bytes()[:5000])
    wrong.write_text('backbone: {depth: [1, 1, 1, 1, 9]}\n')
    size = ['--image-size', 64, 64, '--out', folder]
    for arguments, message in (
            ([config, truncated, '--subnet', 'max', *size], 'truncated.pth: cannot be read as a checkpoint'),
            ([config, checkpoint, '--subnet', wrong, *size], 'wrong.yaml: backbone.depth'),
            ([config, checkpoint, '--subnet', 99999, *size], '5183'),
            ([config, checkpoint, '--subnet', 'max', *size[3:]], '--image-size H W is missing'),
            ([config, checkpoint, '--subnet', 'max', *size, '--weights', 'ema'], "beside the trained ones, got 'ema'"),
            ([config, checkpoint, '--subnet', 'max', *size, '--calib-images', -1],
             '--calib-images must be an integer >= 0, got -1'),
            (['configs/retinanet_r18_supnet.py', checkpoint, '--subnet', 'max', *size, '--calib-images', 0],
             'is of another architecture'),
    ):
        assert message in refused(monkeypatch, capsys, *arguments)
        assert not folder.exists()
    folder.mkdir()
    assert refused(monkeypatch, capsys, config, checkpoint, '--subnet', 'max', *size) == (
        f'{folder}: exists, and nothing is overwritten; give the name of a new folder')
    assert not [path for path in workspace.iterdir() if '.partial' in path.name]
