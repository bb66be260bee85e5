"""The guide to the audit trail names every action that the code records, and none that it does not."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
GUIDE = ROOT / "docs" / "guides" / "audit.md"
TRAIL = "lingpai/storage/trail.py"
NEVER = {"project.disable", "project.enable"}
"""What `trail.changed` would say of things that have no field `disabled`."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Code:
    """One module: which function each node is in."""

    def __init__(self, path: Path) -> None:
        self.name = str(path.relative_to(ROOT))
        self.tree = ast.parse(path.read_text(encoding="utf-8"))
        self.uses_trail = self.name == TRAIL or "lingpai.storage.trail" in {
            node.module for node in ast.walk(self.tree) if isinstance(node, ast.ImportFrom)
        }

    def calls(self, name: str) -> Iterator[tuple[ast.Call, Function | None]]:
        """The calls of what is called `name`, each with the function around it."""
        yield from self._calls(self.tree, name, None)

    def _calls(
        self, node: ast.AST, name: str, around: Function | None
    ) -> Iterator[tuple[ast.Call, Function | None]]:
        if isinstance(node, Function):
            around = node
        if isinstance(node, ast.Call) and _name_of(node.func) == name:
            yield node, around
        for child in ast.iter_child_nodes(node):
            yield from self._calls(child, name, around)

    def values(self, node: ast.expr, around: Function | None) -> set[str]:
        """Every text that `node` can be. Fails for what it does not know, so that nothing is passed over."""
        match node:
            case ast.Constant(value=str(text)):
                return {text}
            case ast.IfExp(body=one, orelse=other):
                return self.values(one, around) | self.values(other, around)
            case ast.FormattedValue(value=value):
                return self.values(value, around)
            case ast.JoinedStr(values=parts):
                return {"".join(each) for each in product(*(self.values(part, around) for part in parts))}
            case ast.Name(id=name) if around is not None and name in _parameters(around):
                return self._arguments(around, name)
            case ast.Name(id=name):
                found: set[str] = set()
                for value in _assigned(around, name):
                    found |= self.values(value, around)
                for value in [] if found else _assigned(self.tree, name):
                    found |= self.values(value, None)
                assert found, f"{self.name}:{node.lineno}: what is {name}?"
                return found
        raise AssertionError(f"{self.name}:{node.lineno}: cannot tell what {ast.unparse(node)} is")

    def _arguments(self, function: Function, parameter: str) -> set[str]:
        """What callers give for a parameter: those of this module, and of all modules for the makers in `trail`."""
        found: set[str] = set()
        for module in modules() if self.name == TRAIL else [self]:
            for call, around in module.calls(function.name):
                found |= module.values(_argument(call, function, parameter), around)
        assert found, f"{self.name}: nobody calls {function.name}"
        return found


def _name_of(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _assigned(scope: ast.AST | None, name: str) -> list[ast.expr]:
    """What `name` is given in a function or, for a module, at its top."""
    found: list[ast.expr] = []
    nodes = [] if scope is None else scope.body if isinstance(scope, ast.Module) else ast.walk(scope)
    for each in nodes:
        targets = each.targets if isinstance(each, ast.Assign) else [getattr(each, "target", None)]
        if isinstance(each, ast.Assign | ast.AnnAssign) and each.value is not None:
            found += [each.value for target in targets if target is not None and _name_of(target) == name]
    return found


def _parameters(function: Function) -> list[str]:
    arguments = function.args
    names = [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return [name for name in names if name != "self"]


def _argument(call: ast.Call, function: Function, parameter: str) -> ast.expr:
    for keyword in call.keywords:
        if keyword.arg == parameter:
            return keyword.value
    return call.args[_parameters(function).index(parameter)]


@cache
def modules() -> list[Code]:
    """The modules that know of the trail."""
    found = (Code(path) for path in sorted((ROOT / "lingpai").rglob("*.py")))
    return [module for module in found if module.uses_trail]


def recorded() -> set[str]:
    """The action of every `Deed` that the code can make."""
    found: set[str] = set()
    for module in modules():
        for call, around in module.calls("Deed"):
            [action] = [keyword.value for keyword in call.keywords if keyword.arg == "action"]
            found |= module.values(action, around)
    return found


def documented() -> list[str]:
    """The actions in the first column of the guide's table."""
    table = GUIDE.read_text(encoding="utf-8").partition("| action | when |\n")[2].partition("\n\n")[0]
    return [
        action for row in table.splitlines()[1:] for action in re.findall(r"`([^`]+)`", row.split("|")[1])
    ]


def test_the_guide_names_every_action_that_is_recorded() -> None:
    assert recorded() - NEVER - set(documented()) == set()


def test_the_guide_names_no_other_action() -> None:
    assert set(documented()) - recorded() == set()
    assert not NEVER & set(documented())


def test_the_guide_names_each_action_once() -> None:
    assert sorted(set(documented())) == sorted(documented())


def test_actions_are_found_however_they_are_written() -> None:
    """A constant, one of two, made with a verb, and through the makers in `trail`."""
    assert recorded() >= {"server.start", "limits.reset", "limits.set", "invitation.expire", "key.enable"}
