"""The rooms of the package: which may import which, and no circles."""
import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / 'mmbignas'
GROUND = {'dependencies', 'errors', 'registry', 'version', 'utils'}
# Room -> the rooms below it that it may import, beside the ground. `docs/design.md` says what each is for.
ROOMS = {
    'dependencies': {'errors'},
    'errors': set(),
    'registry': set(),
    'version': set(),
    'utils': {'errors', 'dependencies', 'registry'},
    'cli': {'errors', 'dependencies', 'utils'},
    'space': GROUND,
    'ops': GROUND | {'space'},
    'models': GROUND | {'space', 'ops'},
    'supernet': GROUND | {'space', 'ops', 'models'},
    'elastic': GROUND | {'space', 'ops', 'supernet', 'cost', 'analysis'},
    'analysis': GROUND | {'space'},
    'data': GROUND | {'space', 'ops', 'supernet'},
    'agreement': GROUND | {'space', 'supernet', 'data'},
    'cost': GROUND | {'space', 'ops', 'models', 'supernet'},
    'search': GROUND | {'space', 'cost'},
    'export': GROUND | {'space', 'ops', 'supernet', 'data', 'cost', 'elastic'},
    'train': GROUND | {'space', 'supernet', 'data', 'agreement', 'cost'},
    'latency': GROUND | {'space', 'supernet', 'cost', 'export'},
    'distill': GROUND | {'space', 'ops', 'supernet', 'data', 'train'},
    'evaluation': GROUND | {'space', 'supernet', 'data', 'agreement', 'cost', 'analysis', 'search', 'latency'},
    'ranking': GROUND | {'space', 'supernet', 'data', 'analysis', 'export', 'evaluation'},
}


def read_imports(package: Path) -> dict[str, dict[str, int]]:
    """Module -> the modules of the package that it imports, anywhere in it, and in which line."""
    files = {'.'.join(path.relative_to(package).with_suffix('').parts).removesuffix('__init__').rstrip('.'): path
             for path in package.rglob('*.py') if '.mim' not in path.parts}
    imports: dict[str, dict[str, int]] = {}
    for module, path in files.items():
        found = imports[module] = {}
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                start = node.module or ''
                if node.level:  # relative imports are relative to the package's own folder
                    parts = ['mmbignas', *path.relative_to(package).parts]
                    start = '.'.join([*parts[:len(parts) - node.level], *filter(None, [node.module])])
                names = [f'{start}.{alias.name}' for alias in node.names]
            else:
                continue
            for name in names:
                if not name.startswith('mmbignas.'):
                    continue
                name = name.removeprefix('mmbignas.')
                while name and name not in files:
                    name = name.rpartition('.')[0]
                if name and name != module:
                    found.setdefault(name, node.lineno)
    return imports


def room(module: str) -> str:
    return module.partition('.')[0]


def upward(imports: dict[str, dict[str, int]]) -> list[str]:
    """Imports of rooms that the importing one may not know."""
    return [f'mmbignas/{module.replace(".", "/")}:{line} imports {other}'
            for module, others in imports.items() if module and room(module) in ROOMS
            for other, line in others.items() if room(other) not in {room(module), *ROOMS[room(module)]}]


def circles(imports: dict[str, dict[str, int]]) -> list[str]:
    """Modules that import each other, directly or through others, one line per circle."""
    found, finished = [], set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        if module in trail:
            found.append(' -> '.join([*trail[trail.index(module):], module]))
            return
        if module in finished:
            return
        for other in imports[module]:
            visit(other, (*trail, module))
        finished.add(module)

    for module in imports:
        visit(module, ())
    return found


IMPORTS = read_imports(PACKAGE)


def test_each_folder_is_a_room_of_the_list():
    assert {room(module) for module in IMPORTS if module} == set(ROOMS)


def test_the_list_itself_has_no_circle():
    assert not circles({name: dict.fromkeys(below - {name}, 0) for name, below in ROOMS.items()
                        if name not in GROUND} | {name: {} for name in GROUND})


def test_no_room_imports_a_higher_one():
    assert not upward(IMPORTS)


def test_no_circle():
    assert not circles(IMPORTS)


@pytest.mark.parametrize('lines, message', [
    (dict(space='from mmbignas.supernet import Supernet'), 'mmbignas/space/x:1 imports supernet.x'),
    (dict(cost='def f():\n    import mmbignas.train.x'), 'mmbignas/cost/x:2 imports train.x'),
])
def test_what_is_wrong_is_found_and_named(tmp_path, lines, message):
    for name in ('space', 'cost', 'supernet', 'train'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'x.py').write_text(lines.get(name, '').replace('supernet import Supernet',
                                                                          'supernet.x import Supernet'))
    assert upward(read_imports(tmp_path)) == [message]


def test_a_circle_is_found_and_named(tmp_path):
    for name, other in ('ab', 'bc', 'ca'):
        (tmp_path / f'{name}.py').write_text(f'from mmbignas.{other} import x')
    assert circles(read_imports(tmp_path)) == ['a -> b -> c -> a']


def test_names_of_files_mean_one_thing():
    """No two files of one name, but for the classes' files of the networks and heads."""
    names = [module.rpartition('.')[2] for module in IMPORTS if '.' in module and not (PACKAGE / module.replace(
        '.', '/')).is_dir()]
    assert sorted({name for name in names if names.count(name) > 1}) == []
