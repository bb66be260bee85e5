"""No answer is a page, and the policy of TLS goes with answers over TLS alone."""

import asyncio

import pytest

from lingpai.web.security_headers import HEADERS, SecurityHeaders


def headers_of(scheme, *own):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": list(own)})
        await send({"type": "http.response.body", "body": b"hi"})

    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(
        SecurityHeaders(app, strict_transport="max-age=1")({"type": "http", "scheme": scheme}, None, send)
    )
    assert sent[1]["body"] == b"hi"
    return {name.decode(): value.decode() for name, value in sent[0]["headers"]}


@pytest.mark.parametrize(("scheme", "policy"), [("https", "max-age=1"), ("http", None)])
def test_rfc6797_s7_2_policy_is_sent_over_tls_only(scheme, policy):
    assert headers_of(scheme).get("strict-transport-security") == policy


def test_asvs_3_4_answers_are_no_pages():
    headers = headers_of("http", (b"x-own", b"1"))

    assert headers == {"x-own": "1", **HEADERS}
    assert headers["x-content-type-options"] == "nosniff"
    assert all(
        part in headers["content-security-policy"]
        for part in ("default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'")
    )


def test_what_is_a_page_sets_its_own():
    own = (b"content-security-policy", b"default-src 'self'")

    assert headers_of("http", own)["content-security-policy"] == "default-src 'self'"
