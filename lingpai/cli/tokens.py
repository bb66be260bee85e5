"""`lingpai tokens`: which programs have signed in and which clients hold access tokens, and ending that."""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from cyclopts import App, Parameter

from lingpai.cli.failures import UsageError
from lingpai.cli.options import NO_OPTIONS, Options, examples
from lingpai.cli.output import Cell, listing, print_json
from lingpai.cli.server import connect, segment
from lingpai.cli.tables import drop, drop_empty, print_table, swap
from lingpai.cli.times import shown_ago, shown_time
from lingpai.terminal import say

app = App(
    name="tokens",
    help="See which programs are signed in and which tokens are out, and end them.",
    help_epilogue=examples(
        "lingpai tokens list",
        "lingpai tokens list --user alice",
        "lingpai tokens revoke fam_4fKx0aZ1bC2dE3fG",
    ),
)

PATH: Final = "/api/v1/tokens"
BUILT_IN: Final = "(no client)"
"""The built-in public client, with which users sign in without a registered one."""

_PAGE: Final = 200
_KINDS: Final = {"sign-in": "family", "token": "access_token"}
_WORDS: Final = {kind: word for word, kind in _KINDS.items()}


@app.command(
    name="list",
    help_epilogue=examples(
        "lingpai tokens list",
        "lingpai tokens list --user alice --kind sign-in",
        "lingpai tokens list --client nightly --json",
    ),
)
def list_(
    *,
    user: Annotated[str | None, Parameter(help="Only what acts for this user.")] = None,
    client: Annotated[str | None, Parameter(help="Only what this OAuth client got.")] = None,
    kind: Annotated[
        Literal["sign-in", "token"] | None,
        Parameter(help="Only sign-ins that can be refreshed, or only single access tokens."),
    ] = None,
    limit: Annotated[int, Parameter(help="The most to show.")] = 200,
    options: Options = NO_OPTIONS,
) -> None:
    """List what is out: sign-ins first, then access tokens of clients; what lives longest comes first."""
    if limit < 1:
        raise UsageError("--limit is at least 1.")
    wishes = {"user": user, "client": client, "kind": None if kind is None else _KINDS[kind]}
    tokens, has_more = _first(options, {name: value for name, value in wishes.items() if value}, limit)
    if options.as_json:
        print_json(tokens)
    elif tokens:
        headers = (
            "id",
            "kind",
            "client",
            "user",
            "scopes",
            "created",
            "refreshed",
            "expires",
            "address",
            "program",
        )
        print_table(headers, [_row(token) for token in tokens], narrower=_narrower(tokens))
    else:
        say("No tokens are out.")
    if has_more:
        say(f"There are more than these {len(tokens)}. See them with --limit, or ask for less.")


@app.command(
    help_epilogue=examples(
        "lingpai tokens revoke fam_4fKx0aZ1bC2dE3fG", "lingpai tokens revoke 4fKx0aZ1bC2d 9Lm2Qr7Ty1Za"
    )
)
def revoke(
    *ids: Annotated[
        str, Parameter(help="Of a sign-in, which ends with all of its tokens, or of an access token.")
    ],
    options: Options = NO_OPTIONS,
) -> None:
    """End sign-ins or access tokens. The next call with them is refused."""
    if not ids:
        raise UsageError("Name at least one id. `lingpai tokens list` shows them.")
    with connect(options) as server:
        for id_ in ids:
            server.request("DELETE", f"{PATH}/{segment(id_)}")
            say(f"Revoked {id_}.")
    if options.as_json:
        print_json([{"id": id_, "revoked": True} for id_ in ids])


def _first(options: Options, query: dict[str, Any], limit: int) -> tuple[list[dict[str, Any]], bool]:
    """The first `limit`, and whether there are more: a busy client may have millions out."""
    found: list[dict[str, Any]] = []
    with connect(options) as server:
        while True:
            page = server.request("GET", PATH, params={**query, "limit": min(_PAGE, limit - len(found))})
            found += page["data"]
            if not page["next_cursor"] or len(found) >= limit:
                return found, bool(page["next_cursor"])
            query = {**query, "cursor": page["next_cursor"]}


def _row(token: dict[str, Any]) -> tuple[Cell, ...]:
    return (
        token["id"],
        _WORDS.get(token["kind"], token["kind"]),
        token["client"] or BUILT_IN,
        token["user"],
        listing(token["scopes"]),
        shown_time(token["created_at"]),
        shown_time(token["refreshed_at"]),
        shown_time(token["expires_at"]),
        token["address"],
        token["user_agent"],
    )


def _narrower(tokens: Sequence[dict[str, Any]]) -> tuple[Any, ...]:
    """The id is what ends a token, so it stays; how it was made is the first to go."""
    return (
        drop_empty("address", "program", "refreshed"),
        drop("program"),
        drop("scopes"),
        *(
            swap(header, [shown_ago(token[f"{header}_at"]) for token in tokens])
            for header in ("created", "refreshed", "expires")
        ),
        drop("created"),
        drop("address"),
        drop("refreshed"),
        drop("kind"),
    )
