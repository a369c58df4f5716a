"""A Sphinx extension that writes one API page per room of the package, so that no page names a file.

A room is a package: ``mmbignas.space``, ``mmbignas.train.watch``, ... Its page has what the room exports, under the
name that one imports it by, then what its modules define besides. The pages lie in ``reference/api`` and are written
anew by each build.
"""
import importlib
import inspect
import pkgutil
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

from sphinx.util.logging import getLogger
from sphinx.util.nodes import make_refnode

FOLDER = Path('reference', 'api')
logger = getLogger(__name__)


def modules_of(package: ModuleType) -> list[ModuleType]:
    """All public modules and packages directly within a package, in alphabetical order."""
    names = [info.name for info in pkgutil.iter_modules(package.__path__) if not info.name.startswith('_')]
    return [importlib.import_module(f'{package.__name__}.{name}') for name in sorted(names)]


def first_line(module: ModuleType) -> str:
    """What a module says that it is for."""
    return (inspect.getdoc(module) or '').partition('\n')[0]


def defined_in(module: ModuleType, written: set[int]) -> list[str]:
    """The public classes and functions that a module defines and that have no place yet.

    Args:
        module: the module.
        written: ``id`` of each object that has one.
    """
    return [name for name, value in vars(module).items()
            if not name.startswith('_') and (inspect.isclass(value) or inspect.isfunction(value))
            and value.__module__ == module.__name__ and id(value) not in written]


def room_page(room: ModuleType, written: set[int]) -> str:
    """The page of a room, in reStructuredText.

    Args:
        room: the room.
        written: ``id`` of each object that has a place on an earlier page; those of this page are added.
    """
    title = room.__name__
    exported = {id(getattr(room, name)): name for name in getattr(room, '__all__', ())
                if id(getattr(room, name)) not in written}
    written.update(exported)
    lines = [title, '=' * len(title), '', f'.. automodule:: {title}', '   :no-index:', '']
    for name in exported.values():
        value = getattr(room, name)
        kind = 'class' if inspect.isclass(value) else 'function' if inspect.isfunction(value) else None
        if inspect.isclass(value) and issubclass(value, BaseException):
            kind = 'exception'
        if kind is not None:
            lines += [f'.. auto{kind}:: {title}.{name}', *['   :members:'] * (kind != 'function'), '']
    for module in modules_of(room):
        names = [] if hasattr(module, '__path__') else defined_in(module, written)
        if names:
            lines += [module.__name__, '-' * len(module.__name__), '',
                      f'.. automodule:: {module.__name__}', f'   :members: {", ".join(names)}', '']
    return '\n'.join(lines)


def rooms_of(package: ModuleType) -> list[ModuleType]:
    """A package and all packages within it."""
    inner = [module for module in modules_of(package) if hasattr(module, '__path__')]
    return [package, *(room for module in inner for room in rooms_of(module))]


def write_pages(app: Any) -> None:
    """Write the page of each room, and a list of them."""
    folder = Path(app.srcdir) / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rooms = rooms_of(importlib.import_module('mmbignas'))
    written: set[int] = set()
    for room in rooms:
        (folder / f'{room.__name__}.rst').write_text(room_page(room, written))
    rows = ''.join(f'   * - :doc:`{room.__name__}`\n     - {first_line(room)}\n' for room in rooms)
    toctree = ''.join(f'   {room.__name__}\n' for room in rooms)
    (folder / 'index.rst').write_text(
        'API\n===\n\nOne page per room of the package, from its docstrings.\n\n.. list-table::\n\n' + rows +
        '\n.. toctree::\n   :hidden:\n\n' + toctree)


def resolve(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Resolve what a docstring refers to by its name alone, or by the file that it is in.

    A class is documented under the room that exports it, so Sphinx does not find such references by itself. One to
    something of this package that does not exist is a warning.
    """
    target = node.get('reftarget', '')
    if node.get('refdomain') != 'py' or not target:
        return None
    objects = env.get_domain('py').objects
    last = target.rpartition('.')[2]
    names = [name for name, entry in objects.items() if not entry.aliased and name.rpartition('.')[2] == last]
    path = target.split('.')[:-1]
    if target.startswith('mmbignas.'):  # the room has to be right
        names = [name for name in names if name.split('.')[:2] == path[:2]] or [
            name for name in names if name.rpartition('.')[0].rpartition('.')[2] == path[-1]]
    elif path:
        names = [name for name in names if name.endswith(f'.{target}')]
    if len(names) == 1:
        entry = objects[names[0]]
        return make_refnode(app.builder, node['refdoc'], entry.docname, entry.node_id, content, names[0])
    if target.startswith('mmbignas.') and not exists(target):
        logger.warning('%s does not exist', target, location=node)
    return None


def exists(name: str) -> bool:
    """Whether there is something of this name, such as a module or a constant, which have no entries of their own."""
    try:
        pkgutil.resolve_name(name)
    except (AttributeError, ImportError):
        return False
    return True


def setup(app: Any) -> dict[str, Any]:
    """Register the extension."""
    app.connect('builder-inited', write_pages)
    app.connect('missing-reference', resolve)
    return dict(version='1', parallel_read_safe=True)
