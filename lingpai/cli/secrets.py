"""`lingpai secrets`: the versions of the server's own secrets. None of them is ever shown."""

from typing import Annotated, Any, Final, Literal

from cyclopts import App, Parameter

from lingpai.cli.options import NO_OPTIONS, Options, examples
from lingpai.cli.output import Cell, listing, print_json
from lingpai.cli.server import connect, segment
from lingpai.cli.tables import drop, drop_empty, print_table, swap
from lingpai.cli.times import shown_ago, shown_time
from lingpai.terminal import say

app = App(
    name="secrets",
    help="See and replace the server's own secrets: pepper, root key, signing keys.",
    help_epilogue=examples(
        "lingpai secrets list", "lingpai secrets rotate pepper", "lingpai secrets retire pepper 1"
    ),
)

PATH: Final = "/api/v1/secrets"
_WHAT_NOW: Final = {
    "pepper": "API keys and client secrets move to it when they are used next. `lingpai secrets list` shows how many are"
    " left; then retire the old one.",
    "root": "What is sealed is being sealed anew under it. `lingpai secrets list` shows how much is left; then retire the"
    " old one.",
    "signing": "It is published and will be used at the time shown. The old one goes by itself after its last token.",
}

KindArgument = Annotated[Literal["pepper", "root", "signing"], Parameter(help="pepper, root or signing.")]


@app.command(name="list", help_epilogue=examples("lingpai secrets list", "lingpai secrets list --json"))
def list_(*, options: Options = NO_OPTIONS) -> None:
    """List the versions of every secret, how old they are and what needs them."""
    with connect(options) as client:
        versions = client.request("GET", PATH)["data"]
    if options.as_json:
        print_json(versions)
    else:
        _print_versions(versions)


@app.command(
    help_epilogue=examples(
        "lingpai secrets rotate pepper",
        "lingpai secrets rotate root",
        "lingpai secrets rotate signing --leaked",
    )
)
def rotate(
    kind: KindArgument,
    /,
    *,
    leaked: Annotated[
        bool,
        Parameter(
            help="The signing keys leaked: use new ones at once, and accept nothing that the old ones have signed."
        ),
    ] = False,
    options: Options = NO_OPTIONS,
) -> None:
    """Make a new version and use it from now on; what was made with older ones goes on working."""
    with connect(options) as client:
        made = client.request("POST", f"{PATH}/{kind}/rotate", json={"leaked": leaked})["data"]
    say(f"Made {kind} {listing(version['version'] for version in made)}.")
    say(
        "It is used at once; nothing signed by an older one is accepted any more."
        if leaked
        else _WHAT_NOW[kind]
    )
    if options.as_json:
        print_json(made)
    else:
        _print_versions(made)


@app.command(help_epilogue=examples("lingpai secrets retire pepper 1"))
def retire(
    kind: KindArgument,
    version: Annotated[str, Parameter(help="The version, as `lingpai secrets list` shows it.")],
    /,
    *,
    options: Options = NO_OPTIONS,
) -> None:
    """Take an old version away for good; refused while anything needs it."""
    with connect(options) as client:
        client.request("DELETE", f"{PATH}/{kind}/{segment(version)}")
    say(f"Retired {kind} {version}.")
    if options.as_json:
        print_json({"kind": kind, "version": version, "retired": True})


def _print_versions(versions: list[dict[str, Any]]) -> None:
    rows = [_row(version) for version in versions]
    narrower = (
        swap("made", [shown_ago(version["created_at"]) for version in versions]),
        drop_empty("algorithm"),
        drop("kept in"),
    )
    print_table(
        ("secret", "version", "state", "algorithm", "made", "needed by", "kept in"), rows, narrower=narrower
    )


def _row(version: dict[str, Any]) -> tuple[Cell, ...]:
    return (
        version["kind"],
        version["version"],
        _state(version),
        version["algorithm"],
        shown_time(version["created_at"]),
        "\n".join(f"{what}: {count:,}" for what, count in version["uses"].items()),
        version["place"],
    )


def _state(version: dict[str, Any]) -> str:
    if version["state"] == "next" and version["use_from"]:
        return f"next, from {shown_time(version['use_from'])}"
    if version["state"] == "old" and version["verify_until"]:
        return f"old, until {shown_time(version['verify_until'])}"
    return str(version["state"])
