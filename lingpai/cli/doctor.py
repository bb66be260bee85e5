"""`lingpai doctor`: find out, step by step, why calls do not work."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.text import Text

from lingpai.cli.checks.address import check_address
from lingpai.cli.checks.directory import check_directory
from lingpai.cli.checks.health import check_health
from lingpai.cli.checks.key import VARIABLE, check_acceptance, check_form, check_models
from lingpai.cli.checks.signature import SignatureCheck, SignedFiles
from lingpai.cli.checks.step import Step, failed, skipped
from lingpai.cli.failures import CommandError, UsageError
from lingpai.cli.options import NO_OPTIONS, Options
from lingpai.cli.output import mark, print_json, print_line, print_text
from lingpai.cli.server import SOCKET_NAME, Place, data_directory, find_place, open_client
from lingpai.client import DEFAULT_SERVER, AddressError, Client, normalize_server
from lingpai.terminal import printable, say

TIMEOUT_S = 10.0


def doctor(
    server: Annotated[
        str | None, Parameter(help="The server's address (else LINGPAI_SERVER, else this machine's server).")
    ] = None,
    /,
    *,
    signature: Annotated[
        str | None,
        Parameter(
            help="File with a signed request that is refused: raw HTTP, or what curl -v shows; - for stdin.",
            allow_leading_hyphen=True,
        ),
    ] = None,
    body: Annotated[Path | None, Parameter(help="With --signature: file with the request's body.")] = None,
    signed_base: Annotated[
        Path | None, Parameter(help="With --signature: file with the signature base that was signed.")
    ] = None,
    options: Options = NO_OPTIONS,
) -> int:
    """Check the way from here to a model: address, server, clock, key, data directory. Exit code 1 when a step fails.

    With --signature, say instead why a signed request is refused.
    """
    if server is not None and options.server is not None:
        raise UsageError("Give the server once: as the argument or with --server.")
    if signature is not None:
        check = SignatureCheck(SignedFiles(signature, body, signed_base))
        steps = _taken(check.steps(_place_of(server, options)), options)
        if not options.as_json and check.explanation is not None and check.explanation.base is not None:
            _show_base(check.explanation.base)
        return _conclude(steps, options, check.as_json())
    if body is not None or signed_base is not None:
        raise UsageError("--body and --signed-base go with --signature FILE.")
    return _conclude(_taken(check_up(server or options.server, options), options), options, {})


def _taken(steps: Iterator[Step], options: Options) -> list[Step]:
    """The steps, each shown as soon as it is there."""
    taken = []
    for step in steps:
        taken.append(step)
        if not options.as_json:
            _show(step)
    return taken


def _conclude(steps: list[Step], options: Options, more: Mapping[str, Any]) -> int:
    failures = [step for step in steps if step.state == "failed"]
    if options.as_json:
        print_json({"ok": not failures, "steps": [step.as_json() for step in steps], **more})
    elif failures:
        say(f"\nFailed: {', '.join(step.name for step in failures)}. Begin with the first.")
    else:
        say("\nNothing is wrong.")
    return 1 if failures else 0


def _place_of(server: str | None, options: Options) -> Place | None:
    """The server to ask about a signature; None when there is none to go to."""
    if server is not None:
        return Place(server=server)
    try:
        return find_place(options)
    except CommandError:
        return None


def _show_base(base: str) -> None:
    say("\nThe signature base, as it is built here:")
    for line in base.split("\n"):
        print_line(line)


def check_up(named: str | None, options: Options) -> Iterator[Step]:
    """All steps that make sense here.

    A named server is looked at alone, unless a data directory is named too. Otherwise the data directory is looked
    at when it exists; and when its server answers, that is the server meant, and it needs no key.
    """
    directory = data_directory(options)
    local_steps: list[Step] = []
    if options.data is not None or (named is None and directory.is_dir()):
        for step in _local(directory):
            local_steps.append(step)
            yield step
    address = named or os.environ.get("LINGPAI_SERVER")
    if address is None and local_steps:
        if local_steps[-1].state == "ok":
            yield from _over_socket(directory / SOCKET_NAME)
        return
    yield from _over_network(address or DEFAULT_SERVER)


def _local(directory: Path) -> Iterator[Step]:
    if directory.is_dir():
        yield from check_directory(directory)
    else:
        yield failed("data directory", f"{directory} does not exist", "Check --data and LINGPAI_DATA.")


def _over_socket(socket: Path) -> Iterator[Step]:
    with open_client(Place(socket=socket)) as client:
        yield from check_health(client)
    if os.environ.get(VARIABLE):
        yield check_form(os.environ[VARIABLE])
    yield skipped(
        "accepted", "on this machine's admin.sock no key is needed; name a server to try the key there"
    )
    with open_client(Place(socket=socket)) as client:
        yield check_models(client)


def _over_network(address: str) -> Iterator[Step]:
    try:
        server = normalize_server(address)
    except AddressError as exc:
        yield failed("address", str(exc), "Correct it: an address is like https://models.example.")
        return
    reached = True
    for step in check_address(server):
        reached = reached and step.state != "failed"
        yield step
    if reached:
        # Without the key: so far nobody knows what listens there.
        with Client(server, api_key="", timeout=TIMEOUT_S) as client:
            for step in check_health(client):
                reached = reached and (step.name != "Lingpai" or step.state == "ok")
                yield step
    form = check_form(os.environ.get(VARIABLE))
    yield form
    if form.state == "ok" and reached:
        with Client(server, timeout=TIMEOUT_S) as client:
            yield from check_acceptance(client)
    elif form.state == "ok":
        yield skipped("accepted", "the key cannot be tried before the server answers")


def _show(step: Step) -> None:
    print_text(Text.assemble(mark(step.state), f" {step.name:<15} {printable(step.detail)}"))
    if step.todo is not None:
        print_text(Text(f"  {'':<15} → {printable(step.todo)}", style="bold"))
