"""The policy goes with answers over TLS, and with no others."""

import asyncio

import pytest

from lingpai.web.strict_transport import StrictTransport


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]})
    await send({"type": "http.response.body", "body": b"hi"})


@pytest.mark.parametrize(("scheme", "has_policy"), [("https", True), ("http", False)])
def test_rfc6797_s7_2_policy_is_sent_over_tls_only(scheme, has_policy):
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(StrictTransport(app, "max-age=1")({"type": "http", "scheme": scheme}, None, send))

    headers = dict(sent[0]["headers"])
    assert headers[b"x-own"] == b"1"
    assert headers.get(b"strict-transport-security") == (b"max-age=1" if has_policy else None)
    assert sent[1]["body"] == b"hi"
