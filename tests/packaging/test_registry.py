"""Classes are found by scope from any other scope, without an import in the config."""

import mmdet.registry
import pytest
from mmengine import registry as root

from mmbignas import registry
from tests.processes import python


@pytest.mark.parametrize('name', ['MODELS', 'HOOKS', 'LOOPS', 'OPTIM_WRAPPERS', 'WEIGHT_INITIALIZERS'])
def test_scope_resolves_from_other_scopes(name):
    ours = getattr(registry, name)
    assert ours.scope == 'mmbignas'
    assert ours.parent is getattr(root, name)
    for class_name, expected in ours.module_dict.items():
        for other in (getattr(root, name), getattr(mmdet.registry, name)):
            assert other.get(f'mmbignas.{class_name}') is expected


def test_scope_resolves_without_an_import():
    code = "from mmdet.registry import MODELS; print(MODELS.get('mmbignas.DynamicConv2d').__module__)"
    assert python('-c', code).splitlines()[-1].startswith('mmbignas.ops')
