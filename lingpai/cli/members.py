"""`lingpai projects members`: who has which role in a project."""

from typing import Annotated, Any, Final, Literal

from cyclopts import App, Parameter

from lingpai.cli.options import NO_OPTIONS, Options, examples
from lingpai.cli.output import print_json
from lingpai.cli.server import all_pages, connect, segment
from lingpai.cli.tables import drop, print_table, swap
from lingpai.cli.times import shown_ago, shown_time
from lingpai.terminal import say

app = App(
    name="members",
    help="See and change who has which role in a project: a viewer sees the project, its keys, limits and usage; a member"
    " also makes keys in it; an admin also looks after all of its keys, its members and the project itself.",
    help_epilogue=examples(
        "lingpai projects members list search",
        "lingpai projects members add search bob --role viewer",
        "lingpai projects members remove search bob",
    ),
)

PATH: Final = "/api/v1/projects"

ProjectName = Annotated[str, Parameter(help="The project's name or id.")]
UserName = Annotated[str, Parameter(help="The user's name or id.")]
Role = Literal["viewer", "member", "admin"]


@app.command(name="list", help_epilogue=examples("lingpai projects members list search"))
def list_(project: ProjectName, /, *, options: Options = NO_OPTIONS) -> None:
    """List the members of a project, those of longest standing first."""
    with connect(options) as client:
        members = all_pages(client, _path(project), {"limit": 200})
    if options.as_json:
        print_json(members)
        return
    narrower = (swap("since", [shown_ago(member["since"]) for member in members]), drop("id"))
    print_table(("user", "role", "state", "since", "id"), [_row(each) for each in members], narrower=narrower)


@app.command(
    help_epilogue=examples(
        "lingpai projects members add search bob", "lingpai projects members add search carol --role admin"
    )
)
def add(
    project: ProjectName,
    user: UserName,
    /,
    *,
    role: Annotated[Role, Parameter(help="viewer, member or admin (else member).")] = "member",
    options: Options = NO_OPTIONS,
) -> None:
    """Take somebody into a project."""
    with connect(options) as client:
        added = client.request("POST", _path(project), json={"user": user, "role": role})
    _tell(f"{added['user']} has the role {added['role']} in {project} now.", added, options)


@app.command(name="set", help_epilogue=examples("lingpai projects members set search bob admin"))
def set_(
    project: ProjectName,
    user: UserName,
    role: Annotated[Role, Parameter(help="viewer, member or admin.")],
    /,
    *,
    options: Options = NO_OPTIONS,
) -> None:
    """Give a member another role, from the next call on. The keys of a viewer in the project are refused."""
    with connect(options) as client:
        changed = client.request("PATCH", f"{_path(project)}/{segment(user)}", json={"role": role})
    _tell(f"{changed['user']} has the role {changed['role']} in {project} now.", changed, options)


@app.command(help_epilogue=examples("lingpai projects members remove search bob"))
def remove(project: ProjectName, user: UserName, /, *, options: Options = NO_OPTIONS) -> None:
    """End somebody's role in a project, or your own. Their keys in it are refused from the next call on."""
    with connect(options) as client:
        client.request("DELETE", f"{_path(project)}/{segment(user)}")
    _tell(f"{user} is no member of {project} any more.", {"user": user, "removed": True}, options)


def _tell(words: str, answer: dict[str, Any], options: Options) -> None:
    say(words)
    if options.as_json:
        print_json(answer)


def _path(project: str) -> str:
    return f"{PATH}/{segment(project)}/members"


def _row(member: dict[str, Any]) -> tuple[str | None, ...]:
    state = "disabled" if member["disabled"] else "active"
    return member["user"], member["role"], state, shown_time(member["since"]), member["id"]
