"""The spec of a trainer that is given as a class, for example from a notebook cell.

Each stage is trained in a separate process, which must be able to import the trainer. A class from
a module can be imported as it is. A class defined in a notebook cell or in the running script
cannot: its source, and everything it uses from the notebook, is written to a module file, named
after its content. The file's digest then identifies the method in every ledger key.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import inspect
import linecache
import re
import symtable
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from cpt_bench.errors import CptBenchError
from cpt_bench.files import write_text
from cpt_bench.plugins import listing, locate
from cpt_bench.trainer import Trainer

HEADER = '"""{name}, as it was defined where cptbench was called; written by cptbench."""\n'


def spec_of(trainer: str | type[Trainer], folder: Path) -> str:
    """The spec of a trainer that was given as a spec or as a class.

    Args:
        trainer: A spec, which is returned as it is, or a class.
        folder: Where to write a module for a class that another process cannot import.

    Raises:
        CptBenchError: It is not a trainer class; or its source cannot be found, or needs something
            that cannot be written to a file.
    """
    if isinstance(trainer, str):
        return trainer
    if not (isinstance(trainer, type) and issubclass(trainer, Trainer)):
        raise CptBenchError(
            f"{trainer!r} is not a trainer"[:200],
            todo="Give a name, or a subclass of cpt_bench.trainer.Trainer",
        )
    name = trainer.__qualname__
    if "." in name:
        raise CptBenchError(
            f"{name} is defined inside a function or another class",
            todo="Define it at the top of a module, a script or a notebook cell",
        )
    if _importable(trainer, name):
        target = f"{trainer.__module__}:{name}"
        return _known(target) or target
    text = module_of(trainer)
    _try(text, trainer)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    file = folder / f"{name.lower()}_{digest}.py"
    if not file.is_file():
        write_text(file, text)
    return f"{file if file.is_absolute() else f'./{file}'}:{name}"


def _importable(value: Any, name: str) -> bool:
    """Whether another process finds ``value`` under its module's name."""
    module = getattr(value, "__module__", None)
    found = sys.modules.get(module) if isinstance(module, str) else None
    if found is None or module == "__main__" or getattr(found, name, None) is not value:
        return False
    top = found.__name__.partition(".")[0]
    # Not importlib.util.find_spec, which trusts sys.modules, even for a module that was loaded from
    # a file or made by hand.
    return any(f.find_spec(top, None) for f in sys.meta_path if hasattr(f, "find_spec"))


def _known(target: str) -> str | None:
    """The name under which a class is listed, since recipes are found by that name."""
    names = [row.name for row in listing("trainers")]
    return next((name for name in names if locate("trainers", name).target == target), None)


def module_of(trainer: type[Trainer]) -> str:
    """The source of a module that defines ``trainer`` and everything it uses.

    Raises:
        CptBenchError: Some source cannot be found, or a value cannot be written to a file.
    """
    parts = _Parts(trainer.__name__, vars(sys.modules[trainer.__module__]))
    parts.add(trainer.__name__, trainer)
    header = HEADER.format(name=trainer.__name__)
    imports = "\n".join(sorted(parts.imports))
    return "\n\n\n".join([header + ("\n" + imports if imports else ""), *parts.bodies]) + "\n"


class _Parts:
    """What a module needs, collected from a class: imports, and definitions in order.

    Args:
        trainer: The class's name, for errors.
        names: The names that it can use: the notebook's globals.
    """

    def __init__(self, trainer: str, names: dict[str, Any]) -> None:
        self.trainer, self.names = trainer, names
        self.imports: set[str] = set()
        self.bodies: list[str] = []
        self.seen: set[str] = set()
        self.defined: dict[int, str] = {}

    def add(self, name: str, value: Any) -> None:
        """Add ``name``, preceded by everything that it uses."""
        if name in self.seen:
            return
        self.seen.add(name)
        inner = inspect.unwrap(value) if callable(value) else value
        if isinstance(value, ModuleType):
            self.imports.add(_import("", value.__name__, name))
        elif (origin := _origin(name, value)) is not None:
            module, attribute = origin
            self.imports.add(_import(module, attribute, name))
        elif id(value) in self.defined:
            self.bodies.append(f"{name} = {self.defined[id(value)]}")
        elif isinstance(inner, type | FunctionType):
            self._define(name, value, inner)
        else:
            self.bodies.append(f"{name} = {self._written(name, value)}")

    def _define(self, name: str, value: Any, inner: type | FunctionType) -> None:
        """Add the source of a class or function, preceded by everything that it uses."""
        source, known = source_of(inner), inner.__name__
        if source is None or "<locals>" in inner.__qualname__.removesuffix("<lambda>"):
            what = "cannot be found" if source is None else "is inside another function"
            raise CptBenchError(
                f"the source of {known} {what}",
                where=f"trainer {self.trainer}",
                todo="Define it at the top of a notebook cell, a script or a module",
            )
        self.defined[id(value)] = known = name if known == "<lambda>" else known
        self.seen.add(known)
        for used in global_names(source):
            if used in self.names:
                self.add(used, self.names[used])
        self.imports |= set(_submodules(source, self.names))
        self.bodies.append(source if known == name else f"{source}\n\n\n{name} = {known}")

    def _written(self, name: str, value: Any) -> str:
        text = repr(value)
        try:
            same = bool(ast.literal_eval(text) == value)
        except (ValueError, SyntaxError, MemoryError, TypeError):
            same = False
        if not same:
            raise CptBenchError(
                f"uses {name!r} of the notebook, a value of type {type(value).__name__}, which "
                "cannot be written to a file",
                where=f"trainer {self.trainer}",
                todo="Create it inside the class, or in a module that is imported",
            )
        return text


def _import(module: str, what: str, name: str) -> str:
    source = f"from {module} import {what}" if module else f"import {what}"
    return source if what == name else f"{source} as {name}"


def _origin(name: str, value: Any) -> tuple[str, str] | None:
    """The module and attribute under which any process can import ``value``."""
    module = str(getattr(value, "__module__", None))
    for attribute in (getattr(value, "__name__", None), name):
        if (
            isinstance(attribute, str)
            and attribute.isidentifier()
            and _importable(value, attribute)
        ):
            return module, attribute
    return None


def _submodules(source: str, names: dict[str, Any]) -> Iterator[str]:
    """Imports of submodules that ``source`` uses by dotted name: ``torch.nn.functional``."""
    for node in ast.walk(ast.parse(source)):
        dotted = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        first, _, rest = dotted.partition(".")
        root = names.get(first)
        if isinstance(root, ModuleType) and f"{root.__name__}.{rest}" in sys.modules:
            yield f"import {root.__name__}.{rest}"


def global_names(source: str) -> list[str]:
    """The names that ``source`` uses but does not define in any of its scopes."""
    found: dict[str, None] = {}

    def look(table: symtable.SymbolTable, top: bool) -> None:
        for symbol in table.get_symbols():
            bound = symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace()
            if symbol.is_referenced() and (not bound if top else symbol.is_global()):
                found[symbol.get_name()] = None
        for child in table.get_children():
            look(child, top=False)

    look(symtable.symtable(source, "<trainer>", "exec"), top=True)
    return list(found)


# -------------------------------------------------------------------------------------- source


def source_of(value: type | FunctionType) -> str | None:
    """The source of a class or function, also from a notebook cell; None if it is not known."""
    for text, line in _places(value):
        try:
            tree = ast.parse(text)
        except SyntaxError:
            continue
        for node in ast.walk(tree):
            if _defines(node, value, line):
                return _lines(text, node)
    return None


def _places(value: type | FunctionType) -> Iterator[tuple[str, int | None]]:
    """Texts that may contain the definition, the likeliest first, each with a line inside it."""
    for function in _functions(value):
        code = function.__code__
        yield "".join(linecache.getlines(code.co_filename)), code.co_firstlineno
    # A class without methods. Before Python 3.13 it does not know its file, and in a notebook it
    # has none; there, the list `In` holds the cells that were run.
    with contextlib.suppress(OSError, TypeError):
        yield textwrap.dedent(inspect.getsource(value)), None
    cells = vars(sys.modules["__main__"]).get("In")
    for cell in reversed(cells if isinstance(cells, list) else []):
        yield str(cell), None


def _functions(value: type | FunctionType) -> Iterator[FunctionType]:
    """``value`` itself if it is a function, or the functions defined inside a class."""
    if isinstance(value, FunctionType):
        yield value
        return
    for member in vars(value).values():
        function = getattr(member, "__func__", getattr(member, "fget", member))
        function = inspect.unwrap(function) if callable(function) else function
        if isinstance(function, type) and function.__qualname__.startswith(f"{value.__name__}."):
            yield from _functions(function)
        elif isinstance(function, FunctionType):
            inside = function.__qualname__.startswith(f"{value.__qualname__}.")
            if inside and linecache.getlines(function.__code__.co_filename):
                yield function


def _defines(node: ast.AST, value: type | FunctionType, line: int | None) -> bool:
    """Whether a statement defines ``value``; ``line``, if known, must be one of its lines."""
    if isinstance(node, ast.Assign):  # a lambda
        if not (isinstance(node.value, ast.Lambda) and value.__name__ == "<lambda>"):
            return False
    elif isinstance(node, ast.ClassDef):
        if not (isinstance(value, type) and node.name == value.__name__):
            return False
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        if isinstance(value, type) or node.name != value.__name__:
            return False
    else:
        return False
    return line is None or _first(node) <= line <= (node.end_lineno or node.lineno)


def _first(node: Any) -> int:
    return int(min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))]))


def _lines(text: str, node: Any) -> str:
    lines = text.splitlines()[_first(node) - 1 : node.end_lineno]
    return textwrap.dedent("\n".join(lines)).rstrip()


def _try(text: str, trainer: type[Trainer]) -> None:
    """Build the class from its source here, to find now whatever is missing or outdated."""
    name = f"cptbench_trial_{re.sub(r'[^a-z0-9]', '_', trainer.__name__.lower())}"
    module = ModuleType(name)
    sys.modules[name] = module  # pydantic looks up names of annotations there
    try:
        exec(compile(text, f"<{trainer.__name__}>", "exec"), vars(module))
        made = getattr(module, trainer.__name__)
        same = _shape(made) == _shape(trainer)
    except Exception as error:
        raise CptBenchError(
            f"cannot be built from its source alone ({type(error).__name__}: {error})",
            where=f"trainer {trainer.__name__}",
            todo="Run the cell that defines it again",
        ) from error
    finally:
        del sys.modules[name]
    if not same:
        raise CptBenchError(
            "its source has changed since the class was defined",
            where=f"trainer {trainer.__name__}",
            todo="Run the cell that defines it again",
        )


def _shape(trainer: type[Trainer]) -> tuple[Any, ...]:
    """What must be the same in a class and in the one built from its source."""
    own = {key for key in vars(trainer) if not key.startswith("__")}
    return own, trainer.Config.model_json_schema(), trainer.privileges
