"""`lingpai projects`: what keys belong to, to share limits and to add usage up by."""

import shlex
from typing import Annotated, Any, Final

from cyclopts import App, Parameter

from lingpai.cli.options import NO_OPTIONS, Options, examples
from lingpai.cli.output import listing, print_json, say
from lingpai.cli.server import all_pages, connect, segment
from lingpai.cli.tables import drop, print_details, print_table, swap
from lingpai.cli.times import shown_ago, shown_time

app = App(
    name="projects",
    help="Manage the projects that keys belong to.",
    help_epilogue=examples("lingpai projects create search --limit 10000/day", "lingpai projects list"),
)

PATH: Final = "/api/v1/projects"


@app.command(
    help_epilogue=examples(
        "lingpai projects create search",
        "lingpai projects create search --owner alice --limit 10000/day",
    )
)
def create(
    name: Annotated[str, Parameter(help="The new project's name.")],
    /,
    *,
    owner: Annotated[str | None, Parameter(help="The user it belongs to (else you).")] = None,
    limit: Annotated[
        tuple[str, ...],
        Parameter(help="A limit that all keys of the project share (else none). Repeatable."),
    ] = (),
    options: Options = NO_OPTIONS,
) -> None:
    """Make a project."""
    body = {"name": name, **({"owner": owner} if owner else {}), **({"limits": limit} if limit else {})}
    with connect(options) as client:
        made = client.request("POST", PATH, json=body)
    if options.as_json:
        print_json(made)
        return
    say(f"Made project {made['name']} of {made['owner']}: {listing(made['limits'], empty='no limits')}.")
    say(f"A key for it: lingpai keys create NAME --project {shlex.quote(made['name'])}")


@app.command(name="list", help_epilogue=examples("lingpai projects list", "lingpai projects list --json"))
def list_(*, options: Options = NO_OPTIONS) -> None:
    """List the projects. Every user has a personal one of the user's name."""
    with connect(options) as client:
        projects = all_pages(client, PATH, {"limit": 200})
    if options.as_json:
        print_json(projects)
        return
    narrower = (
        swap("created", [shown_ago(project["created_at"]) for project in projects]),
        drop("id", "created"),
    )
    headers = ("name", "owner", "kind", "limits", "created", "id")
    print_table(headers, [_row(project) for project in projects], narrower=narrower)


@app.command(help_epilogue=examples("lingpai projects show search", "lingpai projects show search --json"))
def show(
    project: Annotated[str, Parameter(help="The project's name or id.")],
    /,
    *,
    options: Options = NO_OPTIONS,
) -> None:
    """Show a project and its limits."""
    with connect(options) as client:
        found = client.request("GET", f"{PATH}/{segment(project)}")
    if options.as_json:
        print_json(found)
    else:
        print_details(_details(found))


def _kind(project: dict[str, Any]) -> str:
    return "personal" if project["personal"] else "shared"


def _row(project: dict[str, Any]) -> tuple[str | None, ...]:
    limits = listing(project["limits"], empty="none")
    created = shown_time(project["created_at"])
    return project["name"], project["owner"], _kind(project), limits, created, project["id"]


def _details(project: dict[str, Any]) -> dict[str, str | None]:
    return {
        "name": project["name"],
        "id": project["id"],
        "owner": project["owner"],
        "kind": _kind(project),
        "limits": listing(project["limits"], empty="none"),
        "created": shown_time(project["created_at"]),
    }
