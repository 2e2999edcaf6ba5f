"""What the tests about the project itself need: its Python files and what they import."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGES = ('faster_core', 'faster_vla_ros')


def python_files(folder):
    """Return the Python files below `folder` of the repository."""
    return sorted((ROOT / folder).rglob('*.py'))


def module_name(path):
    """Return the dotted name of a file of the repository."""
    parts = path.relative_to(ROOT).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def module_file(name):
    """Return the file of a module of this project, None for anything else."""
    if name.split('.')[0] not in PACKAGES:
        return None
    base = ROOT.joinpath(*name.split('.'))
    for path in (base.with_suffix('.py'), base / '__init__.py'):
        if path.is_file():
            return path
    return None


def _is_type_checking(node):
    test = node.test
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, 'id', None)
    return name == 'TYPE_CHECKING'


class _Imports(ast.NodeVisitor):
    def __init__(self, package):
        self.package = package
        self.names = set()

    def visit_If(self, node):
        for child in (
            node.orelse if _is_type_checking(node) else [node.test, *node.body, *node.orelse]
        ):
            self.visit(child)

    def visit_Import(self, node):
        self.names.update(alias.name for alias in node.names)

    def visit_ImportFrom(self, node):
        base = node.module or ''
        if node.level:
            parents = self.package.split('.')
            parents = parents[: len(parents) - node.level + 1]
            base = '.'.join([*parents, base] if base else parents)
        self.names.add(base)
        # `from package import module` imports a module too.
        self.names.update(f'{base}.{alias.name}' for alias in node.names)

    def visit_Call(self, node):
        name = (
            node.func.attr
            if isinstance(node.func, ast.Attribute)
            else getattr(node.func, 'id', '')
        )
        if name in ('import_module', '__import__') and node.args:
            value = node.args[0]
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                self.names.add(value.value)
        self.generic_visit(node)


def imports_of(source, package=''):
    """Return dotted names imported anywhere in `source`, lazy imports too, type checking not."""
    visitor = _Imports(package)
    visitor.visit(ast.parse(source))
    return visitor.names


def imports_of_file(path):
    """Return what `imports_of` finds in a file of the repository."""
    name = module_name(path)
    package = name if path.name == '__init__.py' else name.rpartition('.')[0]
    return imports_of(path.read_text(encoding='utf-8'), package)


def import_closure(name):
    """Return {project module: imported names} of everything that importing `name` may load."""
    closure, todo = {}, [name]
    while todo:
        module = todo.pop()
        # Importing a.b.c runs a and a.b first.
        parents = module.split('.')
        for depth in range(1, len(parents) + 1):
            part = '.'.join(parents[:depth])
            path = module_file(part)
            if path is not None and part not in closure:
                closure[part] = imports_of_file(path)
                todo.extend(closure[part])
    return closure
