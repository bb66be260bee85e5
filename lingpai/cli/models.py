"""`lingpai models`: what can be called."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import App, Parameter

from lingpai.cli.failures import UsageError
from lingpai.cli.options import NO_OPTIONS, Options, examples
from lingpai.cli.output import Cell, listing, mark, print_json
from lingpai.cli.secret_input import read_secret
from lingpai.cli.server import all_pages, connect, model_path
from lingpai.cli.tables import drop, drop_empty, print_details, print_table, swap
from lingpai.cli.times import shown_ago, shown_time
from lingpai.client import Client, PermissionDeniedError
from lingpai.terminal import say

app = App(
    name="models",
    help="List, add, check and remove models.",
    help_epilogue=examples("lingpai models list", "lingpai models add http://127.0.0.1:11434/v1"),
)

TARGETS: Final = "/api/v1/targets"

PATH: Final = "/api/v1/models"

ModelId = Annotated[str, Parameter(help="The model's id, owner/name.")]


@app.command(name="list", help_epilogue=examples("lingpai models list", "lingpai models list --json"))
def list_(*, options: Options = NO_OPTIONS) -> None:
    """List the models and whether they can be called."""
    with connect(options) as client:
        models = _listed(client)
    _print_models(models, options)


def _listed(client: Client) -> list[dict[str, Any]]:
    """The models with all that is known of them; for a key without models:read, the id and task of those it may call."""
    try:
        return all_pages(client, PATH)
    except PermissionDeniedError as exc:
        if exc.code != "insufficient_scope":
            raise
        say("This key lacks the scope models:read, so only what it may call is shown.")
        return [{"id": model["id"], "task": model.get("task")} for model in client.models()]


@app.command(help_epilogue=examples("lingpai models show lingpai/eliza"))
def show(model: ModelId, /, *, options: Options = NO_OPTIONS) -> None:
    """Show a model, its parameters and where its calls go."""
    with connect(options) as client:
        found = client.request("GET", model_path(model))
    if options.as_json:
        print_json(found)
    else:
        print_details(_details(found))


@app.command(
    help_epilogue=examples(
        "lingpai models add http://127.0.0.1:11434/v1",
        "lingpai models add https://engine.internal:8000",
        "lingpai models add https://api.example.com/v1 --api-key-stdin < key.txt",
    )
)
def add(
    target: Annotated[
        str, Parameter(help="What to serve, as `lingpai serve` takes it: http://host:port/v1, …")
    ],
    /,
    *,
    api_key_stdin: Annotated[
        bool,
        Parameter(
            help="Read the provider's key from stdin. It is stored encrypted and sent to this target only."
        ),
    ] = False,
    options: Options = NO_OPTIONS,
) -> None:
    """Add the models of a target; it stays after a restart."""
    key = {"api_key": read_secret("provider's key")} if api_key_stdin else {}
    with connect(options) as client:
        added = client.request("POST", PATH, json={"target": _as_seen_by_server(target), **key})
    models = added.get("data", [added])
    say(_added(target, models))
    if options.as_json:
        print_json(added)


def _added(target: str, models: list[dict[str, Any]]) -> str:
    if models:
        return f"Added {listing(model['id'] for model in models)}."
    return f"{target} adds no model: it has none, or only some whose ids are taken. `lingpai models targets` counts them."


@app.command(
    help_epilogue=examples("lingpai models check lingpai/eliza", "lingpai models check lingpai/eliza --json")
)
def check(model: ModelId, /, *, options: Options = NO_OPTIONS) -> int:
    """Call a model step by step and show where it fails."""
    with connect(options) as client:
        outcome = client.request("POST", f"{PATH}/check", json={"model": model})
    if options.as_json:
        print_json(outcome)
    else:
        rows = [
            (mark("ok" if step["ok"] else "failed"), step["name"], _took(step), step.get("detail"))
            for step in outcome["steps"]
        ]
        print_table(("", "step", "took", "detail"), rows, right=("took",), prose="detail")
        say(f"{model} {'can be called' if outcome['ok'] else 'cannot be called'}.")
    return 0 if outcome["ok"] else 1


@app.command(help_epilogue=examples("lingpai models remove acme/shout"))
def remove(model: ModelId, /, *, options: Options = NO_OPTIONS) -> None:
    """Remove a model that was added; its usage stays."""
    with connect(options) as client:
        client.request("DELETE", model_path(model))
    say(f"Removed {model}.")
    if options.as_json:
        print_json({"id": model, "removed": True})


@app.command(help_epilogue=examples("lingpai models targets", "lingpai models targets --json"))
def targets(*, options: Options = NO_OPTIONS) -> None:
    """List the targets that were added, served or not, and the ends of their providers' keys."""
    with connect(options) as client:
        kept = client.request("GET", TARGETS)["data"]
    if options.as_json:
        print_json(kept)
        return
    if not kept:
        say("No target was added. Add one with `lingpai models add TARGET`.")
        return
    now = [_kept_row(each, shown_time) for each in kept]
    narrower = (
        swap("key since", [_key_since(each, shown_ago) for each in kept]),
        swap("added", [shown_ago(each["added_at"]) for each in kept]),
        drop("added"),
    )
    print_table(
        ("target", "state", "models", "key", "key since", "added"), now, right=("models",), narrower=narrower
    )


@app.command(
    help_epilogue=examples(
        "lingpai models key https://api.example.com/v1 --api-key-stdin < key.txt",
        "lingpai models key https://api.example.com/v1 --remove",
    )
)
def key(
    target: Annotated[str, Parameter(help="The target, as it was added.")],
    /,
    *,
    api_key_stdin: Annotated[bool, Parameter(help="Read the new key from stdin.")] = False,
    remove: Annotated[bool, Parameter(help="Remove the key that is there.")] = False,
    options: Options = NO_OPTIONS,
) -> None:
    """Replace or remove the provider's key of a target that was added; calls from now on use the new one."""
    if api_key_stdin == remove:
        raise UsageError("Say either --api-key-stdin or --remove.")
    api_key = None if remove else read_secret("provider's key")
    with connect(options) as client:
        client.request("PUT", f"{TARGETS}/key", json={"target": target, "api_key": api_key})
    say(f"{'Removed' if remove else 'Replaced'} the key of {target}.")
    if options.as_json:
        print_json({"target": target, "has_api_key": not remove})


def _kept_row(kept: dict[str, Any], shown: Callable[[str | None], str | None]) -> tuple[Cell, ...]:
    return (
        kept["target"],
        "served" if kept["is_served"] else "away",
        len(kept["models"]),
        (kept["api_key"] or {}).get("hint"),
        _key_since(kept, shown),
        shown(kept["added_at"]),
    )


def _key_since(kept: dict[str, Any], shown: Callable[[str | None], str | None]) -> str | None:
    return shown((kept["api_key"] or {}).get("set_at"))


def _print_models(models: list[dict[str, Any]], options: Options) -> None:
    if options.as_json:
        print_json(models)
        return
    if not models:
        say("There are no models. Add one with `lingpai models add TARGET`.")
        return
    rows = [
        (
            model["id"],
            model["task"],
            model.get("status"),
            listing(model.get("aliases") or ()),
            model.get("description"),
        )
        for model in models
    ]
    narrower = (drop_empty("status", "aliases", "description"), drop("aliases"))
    headers = ("id", "task", "status", "aliases", "description")
    print_table(headers, rows, narrower=narrower, prose="description")


def _details(model: dict[str, Any]) -> dict[str, Cell]:
    details: dict[str, Cell] = {
        "id": model["id"],
        "task": model["task"],
        "status": model.get("status"),
        "description": model.get("description"),
        "aliases": listing(model.get("aliases") or (), empty="none"),
        "backends": "\n".join(_backend(backend) for backend in model.get("backends") or ()),
    }
    properties = (model.get("parameters") or {}).get("properties") or {}
    details["parameters"] = "\n".join(_parameter(name, schema) for name, schema in properties.items())
    shapes = {name: model[name] for name in ("input", "output") if model.get(name)}
    details |= {name: json.dumps(schema, ensure_ascii=False) for name, schema in shapes.items()}
    prices = model.get("price") or {}
    details["price"] = ", ".join(f"{name} {value}" for name, value in prices.items())
    details["limits"] = listing(model.get("limits") or (), empty="none")
    return details


def _backend(backend: Any) -> str:
    if not isinstance(backend, dict):
        return str(backend)
    return " ".join(str(value) for value in backend.values() if value is not None)


def _parameter(name: str, schema: dict[str, Any]) -> str:
    default = f" = {schema['default']}" if "default" in schema else ""
    return f"{name}: {schema.get('type', 'any')}{default}"


def _took(step: dict[str, Any]) -> str | None:
    return f"{step['ms']:.0f} ms" if step.get("ms") is not None else None


def _as_seen_by_server(target: str) -> str:
    """A Python file of this folder by its full path: the server may run in another one."""
    file, colon, name = target.partition(":")
    path = Path(file)
    return f"{path.resolve()}{colon}{name}" if path.suffix == ".py" and path.exists() else target
