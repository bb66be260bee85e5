"""Imports go down only. The drawing of the packages is derived from the code and compared with the rule.

The rule is in docs/architecture.md. A package's parts are drawn as one; `lingpai/__init__.py` is `lingpai`.
"""

import ast
import graphlib
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "lingpai"

DOMAINS = {"identity", "quotas", "metering", "catalog", "audit", "events", "secrets"}

# From the bottom. A package may import those of lower layers; inside one layer only what WITHIN says.
LAYERS = [
    {"errors", "principal", "ids", "prices", "wire", "socket_paths", "terminal"},
    {"telemetry", "media", "authoring", "client"},
    {"storage", "demo"},
    {"web", "jobs"},
    DOMAINS | {"backends", "lane"},
    {"gateway"},
    {
        "settings",
        "targets",
        "names",
        "limit_subjects",
        "server_secrets",
        "domains",
        "model_operations",
        "reload",
        "process_setup",
        "exposure",
        "auditing",
        "answer_examples",
        "api",
        "app",
        "serving",
        "cli",
        "migrations",
        "lingpai",
    },
]
WITHIN = {
    "wire": {"errors", "principal", "ids"},
    "prices": {"errors"},
    "media": {"authoring"},
    "targets": {"settings"},
    "model_operations": {"settings", "targets"},
    "limit_subjects": {"names"},
    "domains": {"settings", "targets", "names", "limit_subjects", "server_secrets"},
    "reload": {"settings"},
    "process_setup": {"settings"},
    "exposure": {"settings", "process_setup"},
    "auditing": {"settings", "reload", "lingpai"},
    "api": {
        "answer_examples",
        "settings",
        "targets",
        "domains",
        "auditing",
        "model_operations",
        "exposure",
        "lingpai",
    },
    "app": {"settings", "targets", "domains", "auditing", "reload", "process_setup", "exposure", "api"},
    "serving": {"app", "process_setup", "settings", "targets", "lingpai"},
    "cli": {"serving", "lingpai"},
}
# Tighter than the layers: all that these may import.
ONLY = {
    "errors": set(),
    "ids": set(),
    "principal": set(),
    "prices": {"errors"},
    "socket_paths": set(),
    "terminal": set(),
    "authoring": {"errors"},
    "client": {"wire"},
    "demo": {"authoring"},
    "lane": set(),
    "backends": {"wire", "errors", "principal", "ids", "telemetry", "authoring", "media", "socket_paths"},
    "migrations": set(),
    "lingpai": {"authoring", "client", "media"},
}
LANE_STANDS_ON = {"uvicorn", "uvloop", "httptools"}

# Imports inside a function that are there on purpose, and why.
LATE = {
    (
        "lingpai.storage.migrate",
        "lingpai.storage.upgrade",
    ): "Alembic is loaded only when there is something to migrate",
    (
        "lingpai.serving.__main__",
        "lingpai.serving.process",
    ): "a missing package, and Ctrl-C while the server is loaded, end in a sentence and not in a traceback",
}


@dataclass(frozen=True)
class Import:
    """One import statement."""

    importer: str
    imported: str
    is_late: bool
    is_for_types: bool


def modules():
    """Every module of the product by name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports_of(module):
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    yield from _walk(tree, module, is_late=False, is_for_types=False)


def _walk(node, module, *, is_late, is_for_types):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            for name in _names(child):
                yield Import(module, name, is_late, is_for_types)
        is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        is_guarded = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        yield from _walk(
            child, module, is_late=is_late or is_function, is_for_types=is_for_types or is_guarded
        )


def _names(statement):
    if isinstance(statement, ast.Import):
        return [alias.name for alias in statement.names]
    assert statement.level == 0, "imports are written in full"
    return [_module_of(f"{statement.module}.{alias.name}") for alias in statement.names]


def _module_of(name):
    """`name` without what is not a module at its end."""
    while name.startswith("lingpai.") and name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def package_of(module):
    return module.split(".")[1] if "." in module else module


def is_ours(name):
    return name == "lingpai" or name.startswith("lingpai.")


IMPORTS = [found for module in MODULES for found in imports_of(module)]


def drawing():
    """Which package imports which, types included."""
    drawn = defaultdict(set)
    for found in IMPORTS:
        importer, imported = package_of(found.importer), package_of(found.imported)
        if is_ours(found.imported) and importer != imported:
            drawn[importer].add(imported)
    return drawn


DRAWING = drawing()


def level(package):
    return next(number for number, layer in enumerate(LAYERS) if package in layer)


def test_every_package_has_its_layer():
    known = set().union(*LAYERS)

    assert {package_of(module) for module in MODULES} <= known, "say in LAYERS where the new package belongs"


@pytest.mark.parametrize("package", sorted(DRAWING))
def test_imports_go_down(package):
    upwards = {
        other
        for other in DRAWING[package]
        if level(other) >= level(package) and other not in WITHIN.get(package, ())
    }

    assert not upwards, f"{package} imports {sorted(upwards)}, which is not below it"


@pytest.mark.parametrize("package", sorted(ONLY))
def test_imports_of_tight_packages(package):
    assert DRAWING[package] <= ONLY[package]


def test_domains_meet_in_the_gateway_and_not_in_each_other():
    for domain in DOMAINS:
        assert not DRAWING[domain] & (DOMAINS - {domain})


def test_nobody_imports_the_composition_but_the_server_process():
    assert {package for package, imported in DRAWING.items() if "app" in imported} == {"serving"}


def test_there_is_no_cycle_between_modules():
    graph = {module: set() for module in MODULES}
    for found in IMPORTS:
        if is_ours(found.imported) and not found.is_for_types and not found.is_late:
            graph[found.importer].add(found.imported)

    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the cycle


def test_late_imports_are_on_the_list():
    late = {
        (found.importer, found.imported) for found in IMPORTS if found.is_late and is_ours(found.imported)
    }

    assert late == set(LATE)


def test_the_lane_stands_on_its_own():
    foreign = {
        found.imported.partition(".")[0]
        for found in IMPORTS
        if package_of(found.importer) == "lane" and not is_ours(found.imported)
    }

    assert foreign - sys.stdlib_module_names <= LANE_STANDS_ON


@pytest.mark.parametrize(
    "statement", ["import lingpai", "import lingpai; lingpai.Client", "import lingpai; lingpai.model"]
)
def test_the_public_names_load_no_server_code(statement):
    server = [
        "fastapi",
        "uvicorn",
        "uvloop",
        "sqlalchemy",
        "alembic",
        "prometheus_client",
        "starlette",
        "pydantic",
    ]

    loaded = modules_after(statement)

    assert not loaded & set(server)
    assert not {
        name for name in loaded if name.startswith(("lingpai.gateway", "lingpai.app", "lingpai.lane"))
    }


def test_import_lingpai_loads_nothing_else():
    loaded = modules_after("import lingpai")

    assert {name for name in loaded if is_ours(name)} == {"lingpai"}
    assert not loaded & {"msgspec", "httpx2", "asyncio"}


def modules_after(statement):
    """The modules that are loaded after `statement`, in a fresh interpreter, beside those of an empty program."""
    code = f"import sys; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(result.stdout.split())
