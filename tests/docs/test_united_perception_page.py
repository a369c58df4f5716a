"""What the page for people coming from United-Perception names, exists."""
import inspect
import re
from pathlib import Path

import mmpretrain.registry  # noqa: F401 (GlobalAveragePooling)
import pytest
from mmengine.config import Config
from mmengine.registry import HOOKS, LOOPS, MODELS

from mmbignas.distill.parsing import NEEDED, OPTIONAL
from mmbignas.evaluation import SampleAccuracyLoop, SampleFlopsLoop, SubnetScorer
from mmbignas.evaluation.sample_flops import SampleFlops
from mmbignas.evaluation.survey import SubnetSurvey
from mmbignas.space import STRATEGIES
from mmbignas.supernet import NAMED_SUBNETS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / 'docs' / 'from_united_perception.md').read_text()
CODE = re.findall(r'`([^`\n]+)`', PAGE)
UP_KEYS = """
    sample_subnet_num sample_strategy valid_before_train
    share_interpolation interpolation_type image_size_list calib_meta_file metric1 metric2
    mimic mimic_as_jobs mimic_job0 loss_weight warm_up_iters teacher0 student mimic_name
    calib_bn image_size flops_range baseline_flops large_flops subnet_count subnet_sample_mode subnet_settings
    save_subnet_weight save_subnet_prototxt test_subnet_latency sample_with_finetune lut_path"""
LOOPS_OF = {'train_cfg': ['SandwichTrainLoop'],
            'test_cfg': ['EvaluateSubnetLoop', 'SampleAccuracyLoop', 'SampleFlopsLoop']}
HANDED_ON = {SampleAccuracyLoop: (SubnetSurvey, SubnetScorer), SampleFlopsLoop: (SampleFlops, )}


def arguments(kind):
    """The names of the arguments of a class, those of its bases and of what it hands them on to included."""
    kinds = [*kind.__mro__, *HANDED_ON.get(kind, ())]
    return {name for own in kinds if '__init__' in vars(own) for name in inspect.signature(own).parameters}


def right_columns():
    """What the rows of the tables say of this package: all but their first cells."""
    return [line.split('|', 2)[2] for line in PAGE.splitlines() if line.startswith('|')]


def test_all_keys_of_the_reference():
    """Those that its configs and its code have."""
    left = ' '.join(line.split('|', 2)[1] for line in PAGE.splitlines() if line.startswith('|'))
    for key in UP_KEYS.split():
        assert re.search(rf'\b{key}\b', left), key


def test_config_files():
    files = {code for code in CODE if re.fullmatch(r'\w+\.py', code)} - {'coco_detection.py'}
    assert len(files) >= 13
    for file in files:
        assert (ROOT / 'configs' / file).is_file(), file
    for tool in {code.split()[0] for code in CODE if code.startswith('tools/')}:
        assert (ROOT / tool).is_file(), tool
    for link in re.findall(r'\]\((?!http)([^)#]+)', PAGE):
        assert (ROOT / 'docs' / link).is_file(), link


def test_registered_names():
    kinds = 'Hook|Loop|Loss|Head|Net|FPN|Conv2d|BatchNorm2d'
    names = {match for code in CODE for match in re.findall(rf'\b[A-Z]\w*(?:{kinds})\b', code)}
    names -= {'BigRetinaHeadWithBN', 'BigClsHead'}  # UP's
    assert {'DistillHook', 'SampleAccuracyLoop', 'FeatureMSELoss', 'BigRetinaHead', 'BigRegNet', 'BigFPN'} <= names
    for name in names:
        assert any(registry.get(f'mmbignas.{name}') for registry in (HOOKS, LOOPS, MODELS)), name


@pytest.mark.parametrize('field', LOOPS_OF)
def test_keys_of_loops(field):
    keys = {key for cell in right_columns() for key in re.findall(rf'`{field}\.(\w+)', cell)}
    assert len(keys) > 5
    known = set().union(*(arguments(LOOPS.get(f'mmbignas.{name}')) for name in LOOPS_OF[field]))
    assert keys <= known, keys - known


def test_keys_of_distillation_jobs():
    keys = {key for cell in right_columns() for key in re.findall(r'`jobs\.NAME\.(\w+)', cell)}
    assert {'mimic_name', 'loss_weight', 'warm_up_iters', 'teacher', 'loss'} <= keys <= {*NEEDED, *OPTIONAL}
    assert {'begin', 'end', 'replaces', 'widths', 'teacher_mimic_name'} <= set(OPTIONAL)


def test_modules_and_elements():
    model = Config.fromfile(ROOT / 'configs' / 'retinanet_r18_supnet.py').model
    assert {'out_indices', 'strides'} <= set(model.backbone)
    assert {'depth', 'out_channel', 'kernel_size'} <= set(model.bbox_head.cls_tower)
    assert {'cls_tower', 'reg_tower'} <= arguments(MODELS.get('mmbignas.BigRetinaHead'))
    assert len(STRATEGIES) == 8
    assert {'max', 'min', 'middle', 'random'} == set(NAMED_SUBNETS)
