"""What stands in Host decides about no access: no operation answers otherwise because of it, except with a 400.

Frameworks that put a request's address together from Host and target have let callers past checks of the path: with the
Host `x/?` the path seems to be `/`.
"""

import json
from typing import Any

import pytest

from tests.e2e.api_operations import Operation, body_schema, filled, operations_of
from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.raw_http import RawConnection, note_error

PLAIN = ("host: 127.0.0.1",)
HOSTS = {
    "path and query": ("host: x/?",),
    "path and fragment": ("host: x/#",),
    "query": ("host: x?",),
    "fragment": ("host: x#",),
    "user": ("host: x@y",),
    "user and open path": ("host: x@127.0.0.1/healthz?",),
    "an open path": ("host: 127.0.0.1/healthz?",),
    "an open path as a fragment hides the rest": ("host: 127.0.0.1/openapi.json#",),
    "backslash": ("host: x\\..\\",),
    "escapes": ("host: x%2f%3f",),
    "brackets": ("host: [::1",),
    "a port that is none": ("host: x:/?",),
    "two ports": ("host: x:1:2",),
    "list": ("host: x, 127.0.0.1",),
    "not ASCII": ("host: x\u00ff/?",),
    "empty": ("host:",),
    "doubled": ("host: 127.0.0.1", "host: x/?"),
    "doubled and equal": PLAIN * 2,
    "missing": (),
    "somebody else's": ("host: lingpai.example",),
}
TARGETS = {
    "absolute": "http://127.0.0.1{path}",
    "absolute with another host": "http://other.example{path}",
    "absolute with another host and scheme": "https://other.example:1{path}",
    "absolute with a user": "http://x@y{path}",
    "absolute before an open path": "http://127.0.0.1{path}#/healthz",
    "absolute without a host": "http://{path}",
}
PROBES = [(name, lines, "{path}") for name, lines in HOSTS.items()] + [
    (name, PLAIN, target) for name, target in TARGETS.items()
]


@pytest.fixture(scope="module")
def narrow(tried: LingpaiServer) -> str:
    """A key that may read usage and nothing else."""
    tried.admin("POST", "/api/v1/users", {"name": "narrow", "limits": ["none"]})
    return tried.make_key("narrow", user="narrow", scopes=["usage:read"])


@pytest.mark.timeout(120)
@pytest.mark.parametrize("with_key", [False, True], ids=["no key", "narrow key"])
def test_host_header_opens_nothing(
    tried: LingpaiServer, document: dict[str, Any], narrow: str, with_key: bool
) -> None:
    """Every operation with every Host: the same class of answer as with a plain one, or a 400."""
    key = narrow if with_key else None
    wrong: list[tuple[str, ...]] = []
    seen: set[int] = set()

    for operation in operations_of(document):
        method, path = operation[:2]
        plain = _status(tried, document, operation, key)
        seen.add(plain)
        for name, lines, target in PROBES:
            status = _status(tried, document, operation, key, host=lines, target=target)
            if not _is_no_other(status, plain):
                wrong.append((method, path, name, f"{plain} became {status}"))
        again = _status(tried, document, operation, key)
        assert again < 500, (method, path)
        assert _is_no_other(again, plain), (method, path, plain, again)

    assert not wrong
    assert {200, 403 if with_key else 401} <= seen, (
        "some are open and most are not, else nothing was compared"
    )
    assert "Traceback" not in tried.stderr


@pytest.mark.parametrize("name", ["doubled", "doubled and equal", "missing"])
def test_there_is_one_host(tried: LingpaiServer, document: dict[str, Any], name: str) -> None:
    """RFC 9112 section 3.2: a request without Host, or with two, is a 400 at every address."""
    statuses = {
        operation[:2]: _status(tried, document, operation, tried.key, host=HOSTS[name])
        for operation in operations_of(document)
    }

    assert {each: status for each, status in statuses.items() if status != 400} == {}


def _is_no_other(status: int, plain: int) -> bool:
    """Whether an answer is of the class of the plain one, or a 400.

    Less than that is fine: `/metrics` has a 403 for names of this machine that it does not know, as a page may have made
    them up (DNS rebinding), and a 429 comes to whoever asks an open address this often.
    """
    is_same = status // 100 == plain // 100
    return is_same or status == 400 or (plain < 300 and status in (403, 429))


def _status(
    server: LingpaiServer, document: dict[str, Any], operation: Operation, key: str | None,
    *, host: tuple[str, ...] = PLAIN, target: str = "{path}",
) -> int:  # fmt: skip
    """Of the answer; streams are left at their head."""
    method, path, description = operation
    lines = [f"{method} {target.format(path=filled(path))} HTTP/1.1", *host, "connection: close"]
    if key is not None:
        lines.append(f"authorization: Bearer {key}")
    body = b""
    if (schema := body_schema(document, description)) is not None:
        body = json.dumps(schema["example"]).encode()
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    elif "requestBody" in description:
        body = b"grant_type=client_credentials&token=x"
        lines += ["content-type: application/x-www-form-urlencoded", f"content-length: {len(body)}"]
    with RawConnection(server.port) as connection:
        connection.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        status, headers = connection.read_head()
    note_error(status, headers, b"")
    return status
