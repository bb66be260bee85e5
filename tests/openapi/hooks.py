"""What Schemathesis needs to know to make good requests: our formats of strings, and names that nobody has yet.

Loaded by `schemathesis run` itself, in its own process.
"""

import base64
import itertools
import json
import os
from collections import Counter

import schemathesis
from hypothesis import strategies as st

from lingpai.identity.scopes import DEFAULT_SCOPES

_NUMBERS = itertools.count()


def _cursor(time: float, id_: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([time, id_]).encode()).decode().rstrip("=")


def _spellings(drawn: bytes) -> st.SearchStrategy[str]:
    key = drawn + b"\x40"  # no point of small order ends so
    plain = base64.b64encode(key).decode()
    url = base64.urlsafe_b64encode(key).decode().rstrip("=")
    return st.sampled_from([
        plain,
        f"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA{plain}\n-----END PUBLIC KEY-----\n",
        json.dumps({"kty": "OKP", "crv": "Ed25519", "x": url}),
    ])  # fmt: skip


FORMATS = {
    "cursor": st.builds(_cursor, st.floats(0, 2e9), st.text("abcXYZ019", min_size=1, max_size=12).map("key {}".format)),
    "data-url": st.just("data:audio/wav;base64,UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA="),
    "ed25519-public-key": st.binary(min_size=31, max_size=31).flatmap(_spellings),
    "expiry": st.sampled_from(["2099-01-01", "2098-12-31T08:00:00+08:00", "2097-06-01T00:00:00Z"]),
    "http-request": st.builds(
        "{} {} HTTP/1.1\r\nHost: models.example\r\n{}\r\n\r\n{}".format,
        st.sampled_from(["GET", "POST", "DELETE"]),
        st.sampled_from(["/v1/models", "/v1/embeddings?x=1", "https://models.example/v1/key"]),
        st.sampled_from(["Date: Tue, 01 Dec 2026 00:00:00 GMT", "Signature-Input: sig=();keyid=\"sgn_1\"", "X-Empty:"]),
        st.sampled_from(["", "{}", "夜"]),
    ),
    "lifetime": st.sampled_from(["30m", "12h", "90d", "2w"]),
    "limit": st.sampled_from(["2000/day@Asia/Shanghai", "10/1s", "100000 tokens/day", "5 USD/month", "8 concurrent"]),
    "model for anything": st.just("lingpai/sentiment"),
    "model for embedding": st.just("lingpai/hashing-embedding"),
    "model for files": st.just("acme/size"),
    "model for generation": st.just("lingpai/eliza"),
    "model for pictures": st.just("acme/none"),
    "model for rerank": st.just("acme/none"),
    "model for speech": st.just("acme/none"),
    "model for transcription": st.just("acme/none"),
    "model-pattern": st.sampled_from(["lingpai/*", "lingpai/eliza", "acme/writer"]),
    "name": st.sampled_from(["laptop", "Data Science", "夜间任务"]),
    "network": st.sampled_from(["127.0.0.0/8", "203.0.113.7", "2001:db8::/32"]),
    "overlap": st.sampled_from(["0s", "30m", "24h", "7d"]),
    "period-end": st.sampled_from(["2098-01-01", "2098-12-31T15:00"]),
    "period": st.sampled_from(["7d", "12h", "30m", "2026-11-20", "2026-11-20T15:00"]),
    "scope": st.sampled_from([*DEFAULT_SCOPES, "usage:read"]),
    "time-zone": st.sampled_from(["UTC", "Asia/Shanghai", "America/St_Johns"]),
    "usage-groups": st.sampled_from(["", "key", "user,model", "day,project"]),
    "user-name": st.sampled_from(["alice", "bob@example.com", "王伟"]),
}  # fmt: skip

for _name, _strategy in FORMATS.items():
    schemathesis.openapi.format(_name, _strategy)


_SHARED_NAMES = frozenset({
    "laptop", "Data Science", "夜间任务", "alice", "bob@example.com", "王伟", "nightly", "search",
})  # fmt: skip
"""Names in the examples of the document and in `FORMATS`: good ones, which only one can have."""

OWN_CURSORS = frozenset({"/api/v1/audit", "/api/v1/tokens", "/api/v1/events"})
"""Lists whose cursors are of another kind, so that they are tried without one."""
KEPT = frozenset(os.environ.get("LINGPAI_KEPT", "").split())
"""What the caller stands on: their key, user and project. Who saws that off sees nothing but 401 from then on."""


_MOST_SIGNING_KEYS = 4
"""A key may have ten, and is called by its id and by its name."""
_SIGNING_KEYS = Counter()


@schemathesis.hook
def before_load_schema(context, raw_schema):
    """Leave the one way to prove who calls that these runs use. Cookies and tokens beside it would be made up."""
    for name in ("accessToken", "csrf", "session"):
        raw_schema.get("components", {}).get("securitySchemes", {}).pop(name, None)
    for operations in raw_schema.get("paths", {}).values():
        for operation in operations.values():
            if "security" in operation:
                operation["security"] = [
                    way for way in operation["security"] if not way.keys() & {"accessToken", "session"}
                ]


@schemathesis.hook
def before_call(context, case, kwargs):
    """Give what is made or renamed a name of its own, and each list a cursor of its kind."""
    name = case.body.get("name") if isinstance(case.body, dict) else None
    if case.method in ("POST", "PATCH") and isinstance(name, str) and name in _SHARED_NAMES:
        case.body = {**case.body, "name": f"{name}-{os.getpid()}-{next(_NUMBERS)}"}
    if _is_cursor(case.query):
        if case.path == "/api/v1/requests":
            case.query = {**case.query, "cursor": _cursor(1.0, "17")}
        elif case.path in OWN_CURSORS:
            case.query = {name: value for name, value in case.query.items() if name != "cursor"}
    if case.method not in ("GET", "HEAD", "OPTIONS") and KEPT & set(
        map(str, (case.path_parameters or {}).values())
    ):
        case.path_parameters = dict.fromkeys(case.path_parameters, "nobody")
    _keep_apart_from_examples(case)
    token = str((case.query or {}).get("key", ""))
    if token.startswith("sk-lp-"):  # what a list calls `key` is a key's id or name, and no key
        case.query = {**case.query, "key": token[6:18]}


def _keep_apart_from_examples(case):
    """What the answers' examples show is tried as a parameter, too; of some of it the time or place is wrong."""
    parameters, query = case.path_parameters or {}, case.query or {}
    if "until" in query and str(query["until"]).startswith("2026-11-20"):
        case.query = {**query, "until": "2098-01-01"}  # else it is before what `since` is by itself, or says
    if case.method == "DELETE" and str(parameters.get("id", "")).startswith("lingpai"):
        case.path_parameters = {"id": "nobody/nothing"}  # the demonstration is named on the command line
    if case.method == "POST" and case.path.endswith("/signing-keys"):
        _SIGNING_KEYS[parameters.get("id")] += 1
        if _SIGNING_KEYS[parameters.get("id")] > _MOST_SIGNING_KEYS:
            case.path_parameters = {"id": "nobody"}


def _is_cursor(query):
    try:
        decoded = json.loads(base64.urlsafe_b64decode(str(query["cursor"]) + "==="))
    except (KeyError, TypeError, ValueError):
        return False
    return isinstance(decoded, list)
