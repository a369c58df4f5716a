"""What the page for people coming from MMRazor says of this package, exists."""
import inspect
import re
from pathlib import Path

from mmengine.registry import HOOKS, LOOPS, MODELS, WEIGHT_INITIALIZERS

from mmbignas.distill.parsing import NEEDED, OPTIONAL
from mmbignas.search import SAMPLERS

PAGE = (Path(__file__).parents[2] / 'docs' / 'from_mmrazor.md').read_text()
HERE = [line.split('|')[2] for line in PAGE.splitlines() if line.startswith('| ')]
REGISTRIES = (HOOKS, LOOPS, MODELS, WEIGHT_INITIALIZERS)


def registered(name):
    return next((found for registry in REGISTRIES if (found := registry.get(f'mmbignas.{name}'))), None)


def arguments(kind):
    return {name for own in kind.__mro__ if '__init__' in vars(own) for name in inspect.signature(own).parameters}


def test_names_and_arguments():
    calls = [call for cell in HERE for call in
             re.findall(r"type='mmbignas\.(\w+)'((?:, \w+=[^,)]+)*)|`(\w+(?:Loop|Hook))\(([^`]*)\)`", cell)]
    assert len(calls) == 7
    for typed, typed_arguments, called, called_arguments in calls:
        kind = registered(typed or called)
        assert kind is not None, typed or called
        keys = re.findall(r'(?:^|, )(\w+)=', typed_arguments or re.sub(r'dict\(.*?\)', 'dict', called_arguments))
        if called != 'DistillHook':
            assert set(keys) <= arguments(kind), (kind, keys)


def test_keys():
    here = ' '.join(HERE)
    assert 'replaces' in OPTIONAL
    assert {'mimic_name', 'loss'} <= {*NEEDED, *OPTIONAL}
    for sampler in ('nsga2', 'coarse_to_fine'):
        assert f"'{sampler}'" in here or f'`{sampler}`' in here
        assert sampler in SAMPLERS
    loop = arguments(LOOPS.get('mmbignas.SubnetSearchLoop'))
    assert {'constraints', 'subnet_count', 'sampler', 'metric1', 'predictor'} <= loop
    assert 'image_size_list' in arguments(LOOPS.get('mmbignas.SandwichTrainLoop'))
    assert 'drop_path_rate' in arguments(MODELS.get('mmbignas.BigMobileNet'))
