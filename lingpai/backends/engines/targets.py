"""From what stands on the command line to the models in it.

A target is ``app.py``, ``app.py:name``, ``package.module`` or ``package.module:name``.
"""

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from lingpai.authoring import ModelDefinition, definition_of, summary
from lingpai.backends.engines.user_errors import TargetError, authors_traceback, failure
from lingpai.errors import did_you_mean

_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Target:
    """A target taken apart: the file or the module, and the name inside it when one was given."""

    source: str
    name: str | None

    @property
    def is_file(self) -> bool:
        return self.source.endswith(".py") or "/" in self.source

    def __str__(self) -> str:
        return self.source if self.name is None else f"{self.source}:{self.name}"


def parse_target(text: str) -> Target:
    """Take `text` apart. Raises TargetError when it has none of the four forms."""
    source, colon, name = text.rpartition(":")
    if not colon:
        source, name = text, ""
    target = Target(source, name or None)
    module_name = re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", source)
    if not source or (colon and not name.isidentifier()) or not (target.is_file or module_name):
        raise TargetError(
            f"`{text}` is not a target. Write app.py, app.py:name, package.module, package.module:name,"
            " http://host:port/v1 or ollama."
        )
    return target


def load_target(text: str) -> list[ModelDefinition]:
    """Import the target and return its models, at least one, each id once.

    Raises TargetError: file, module or name not found (with near names), the import failed (with the author's
    traceback), nothing to serve, an id given twice.
    """
    target = parse_target(text)
    module = _import_file(Path(target.source)) if target.is_file else _import_module(target.source)
    definitions = _decorated(module) if target.name is None else [_named(module, target.name, target)]
    if not definitions:
        definitions = [_only_function(module, target)]
    _refuse_duplicates(definitions, target)
    return definitions


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise TargetError(_missing_file(path))
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    # A file called like a module that is loaded already (random.py, demo.py) must not take its place.
    name = (
        path.stem
        if path.stem.isidentifier() and path.stem not in sys.modules
        else f"lingpai_target_{path.stem}"
    )
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise TargetError(f"`{path}` is not a Python file: its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses, pickle and typing look the module up by its name
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise _import_failed(str(path), error) from error
    return module


def _missing_file(path: Path) -> str:
    if path.is_dir():
        return f"`{path}` is a directory. Name a file in it: {path}/app.py."
    folder = path.parent
    if not folder.is_dir():
        return f"No such file: {path}. The directory {folder} does not exist."
    near = did_you_mean(path.name, sorted(found.name for found in folder.glob("*.py")))
    return f"No such file: {path}.{near}"


def _import_module(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise TargetError(_missing_module(name, error.name)) from error
        raise _import_failed(name, error) from error
    except (Exception, SystemExit) as error:
        raise _import_failed(name, error) from error


def _missing_module(name: str, missing: str) -> str:
    files = [*Path().glob("*.py"), *Path().glob("*/__init__.py")]
    known = {path.stem if path.name != "__init__.py" else path.parent.name for path in files}
    near = did_you_mean(name, sorted(known))
    return f"No module named `{missing}` in this directory or among the installed packages.{near}"


def _import_failed(source: str, error: BaseException) -> TargetError:
    details = authors_traceback(error)
    if isinstance(error, SyntaxError):
        return TargetError(f"`{source}` cannot be read: {error.msg} (line {error.lineno}).", details=details)
    if isinstance(error, SystemExit):
        return TargetError(
            f"`{source}` ended itself on import. Put that call under `if __name__ == '__main__':`.",
            details=details,
        )
    return failure(source, "could not be imported", error)


def _decorated(module: ModuleType) -> list[ModelDefinition]:
    found = (definition_of(value) for value in list(vars(module).values()))
    unique = {id(definition.served): definition for definition in found if definition is not None}
    return list(unique.values())


def _named(module: ModuleType, name: str, target: Target) -> ModelDefinition:
    value = getattr(module, name, None)
    if value is None:
        near = did_you_mean(name, _public_callables(module))
        raise TargetError(f"`{target.source}` has nothing called `{name}`.{near}")
    if not callable(value):
        raise TargetError(f"`{target}` is {type(value).__name__}, not a function or a class.")
    return definition_of(value) or _plain(name, value)


def _only_function(module: ModuleType, target: Target) -> ModelDefinition:
    own = {name: value for name, value in _public_functions(module).items() if _takes_one_argument(value)}
    if len(own) == 1:
        (name, function), *_ = own.items()
        return _plain(name, function)
    if not own:
        raise TargetError(
            f"`{target}` has nothing to serve: no @lp.model and no public function with one positional argument."
        )
    names = ", ".join(f"{target.source}:{name}" for name in own)
    raise TargetError(f"`{target}` has several functions that could be served. Name one: {names}.")


def _plain(name: str, function: Any) -> ModelDefinition:
    return ModelDefinition(id=f"local/{name}", task="generic", served=function, description=summary(function))


def _public_functions(module: ModuleType) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    }


def _public_callables(module: ModuleType) -> Iterable[str]:
    return [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]


def _takes_one_argument(function: Any) -> bool:
    found = list(inspect.signature(function).parameters.values())
    positional = [item for item in found if item.kind in _POSITIONAL]
    needed = [item for item in found if item.default is item.empty and item.kind not in _VARIADIC]
    return bool(positional) and positional[0] is found[0] and all(item is found[0] for item in needed)


def _refuse_duplicates(definitions: list[ModelDefinition], target: Target) -> None:
    seen: set[str] = set()
    for definition in definitions:
        for name in (definition.id, *definition.aliases):
            if name in seen:
                raise TargetError(f"`{target}` gives the name `{name}` to two models. Each needs its own.")
            seen.add(name)
