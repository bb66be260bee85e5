"""`lingpai projects`: what keys belong to, to share limits and to add usage up by."""

import shlex
from typing import Annotated, Any, Final

from cyclopts import App, Parameter

from lingpai.cli.confirming import is_confirmed
from lingpai.cli.options import NO_OPTIONS, Options, examples
from lingpai.cli.output import listing, print_json
from lingpai.cli.server import all_pages, connect, segment
from lingpai.cli.tables import drop, drop_empty, print_details, print_table, swap
from lingpai.cli.times import shown_ago, shown_time
from lingpai.terminal import say

app = App(
    name="projects",
    help="Manage the projects that keys belong to.",
    help_epilogue=examples("lingpai projects create search --limit 10000/day", "lingpai projects list"),
)

app.command("lingpai.cli.members:app", name="members", help="See and change who has which role in a project.")

PATH: Final = "/api/v1/projects"

ProjectName = Annotated[str, Parameter(help="The project's name or id.")]


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
def list_(
    *,
    search: Annotated[str | None, Parameter(help="Only projects with this text in their name.")] = None,
    user: Annotated[str | None, Parameter(help="Only projects in which this user has a role.")] = None,
    options: Options = NO_OPTIONS,
) -> None:
    """List the projects you have a role in, or all for an administrator. Every user has a personal one."""
    with connect(options) as client:
        projects = all_pages(client, PATH, {"search": search, "user": user, "limit": 200})
    if options.as_json:
        print_json(projects)
        return
    narrower = (
        swap("created", [shown_ago(project["created_at"]) for project in projects]),
        drop("id", "created"),
        drop_empty("your role"),
    )
    headers = ("name", "owner", "kind", "your role", "limits", "created", "id")
    print_table(headers, [_row(project) for project in projects], narrower=narrower)


@app.command(help_epilogue=examples("lingpai projects show search", "lingpai projects show search --json"))
def show(
    project: ProjectName,
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


@app.command(help_epilogue=examples("lingpai projects rename search find"))
def rename(
    project: ProjectName,
    name: Annotated[str, Parameter(help="The new name.")],
    /,
    *,
    options: Options = NO_OPTIONS,
) -> None:
    """Give a project another name. A personal one keeps that of its user."""
    with connect(options) as client:
        changed = client.request("PATCH", f"{PATH}/{segment(project)}", json={"name": name})
    say(f"Project {project} is {changed['name']} now.")
    if options.as_json:
        print_json(changed)


@app.command(
    help_epilogue=examples("lingpai projects delete search", "lingpai projects delete search --force --yes")
)
def delete(
    project: ProjectName,
    /,
    *,
    force: Annotated[bool, Parameter(help="Delete its keys and clients with it.")] = False,
    yes: Annotated[bool, Parameter(help="Do not ask.")] = False,
    options: Options = NO_OPTIONS,
) -> int:
    """Delete a project for good; its usage stays. One with keys or clients needs --force."""
    with connect(options) as client:
        found = client.request("GET", f"{PATH}/{segment(project)}")
        if not yes and not is_confirmed(f"project {found['name']}", f"({found['id']}) of {found['owner']}"):
            say("Nothing was deleted.")
            return 1
        params = {"force": "true"} if force else {}
        client.request("DELETE", f"{PATH}/{segment(found['id'])}", params=params)
    say(f"Deleted project {found['name']} ({found['id']}).")
    if options.as_json:
        print_json({"id": found["id"], "name": found["name"], "deleted": True})
    return 0


def _kind(project: dict[str, Any]) -> str:
    return "personal" if project["personal"] else "shared"


def _row(project: dict[str, Any]) -> tuple[str | None, ...]:
    limits = listing(project["limits"], empty="none")
    created = shown_time(project["created_at"])
    role = project.get("role")
    return project["name"], project["owner"], _kind(project), role, limits, created, project["id"]


def _details(project: dict[str, Any]) -> dict[str, str | None]:
    return {
        "name": project["name"],
        "id": project["id"],
        "owner": project["owner"],
        "kind": _kind(project),
        "your role": project.get("role") or "none; you are an administrator",
        "limits": listing(project["limits"], empty="none"),
        "created": shown_time(project["created_at"]),
    }
