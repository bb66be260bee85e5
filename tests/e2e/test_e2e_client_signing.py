"""Clients for signed requests only: an access token is worth nothing without a signature by a key of its client."""

import pytest

from tests.e2e.client_tokens import TokenClient, ask, call, make_client
from tests.e2e.lingpai_server import LingpaiServer
from tests.e2e.raw_http import RawAnswer, exchange
from tests.e2e.signed_caller import SignedClient


@pytest.fixture(params=["hmac-sha256", "ed25519"])
def signed(demo: LingpaiServer, key_name: str, request: pytest.FixtureRequest) -> SignedClient:
    return SignedClient(demo, key_name, request.param)


@pytest.fixture
def hmac_signed(demo: LingpaiServer, key_name: str) -> SignedClient:
    return SignedClient(demo, key_name)


def refused(answer: RawAnswer) -> tuple[int, str]:
    return answer.status, answer.error["code"]


def test_signed_calls_with_a_token_are_answered_and_counted_as_the_clients(signed: SignedClient) -> None:
    token = signed.client.token()

    answer = signed.send(token)
    shown = signed.send(token, b"", method="GET", path="/v1/key")
    listed = signed.send(token, b"", method="GET", path="/api/v1/clients")

    assert (answer.status, shown.status, listed.status) == (200, 200, 200)
    assert signed.server.record_of(answer.headers["x-request-id"])["client_id"] == signed.client.id


def test_a_token_alone_is_worth_nothing(hmac_signed: SignedClient) -> None:
    token = hmac_signed.client.token()

    for _ in range(2):  # the first look-up, and from memory
        for answer in (
            call(hmac_signed.server, token, model="lingpai/eliza"),
            ask(hmac_signed.server, "/v1/key", token),
        ):
            assert refused(answer) == (401, "signature_required")
            assert "accept-signature" in answer.headers
    assert hmac_signed.send(token).status == 200
    assert refused(call(hmac_signed.server, token, model="lingpai/eliza")) == (401, "signature_required")


def test_a_signature_alone_is_worth_nothing(hmac_signed: SignedClient) -> None:
    """A client's signature says which client it is, and not that it was given a token that has not ended."""
    answer = hmac_signed.send(None)

    assert refused(answer) == (401, "signature_invalid")
    assert "access token" in answer.error["message"]


def test_the_token_is_covered_by_the_signature(hmac_signed: SignedClient) -> None:
    token, other = hmac_signed.client.token(), hmac_signed.client.token()
    raw = hmac_signed.request(token)

    swapped = exchange(hmac_signed.server.port, raw.replace(token.encode(), other.encode()))
    uncovered = exchange(hmac_signed.server.port, raw.replace(b' "authorization"', b""))

    assert refused(swapped) == (401, "signature_invalid")
    assert refused(uncovered) == (401, "signature_invalid")
    assert uncovered.error["param"] == "authorization"
    assert exchange(hmac_signed.server.port, raw).status == 200
    assert refused(exchange(hmac_signed.server.port, raw)) == (401, "signature_invalid"), (
        "a request works once"
    )


def test_the_signature_is_of_the_client_that_got_the_token(
    demo: LingpaiServer, hmac_signed: SignedClient, key_name: str
) -> None:
    other = SignedClient(demo, f"{key_name}-other")

    assert refused(other.send(hmac_signed.client.token())) == (401, "signature_invalid")
    assert refused(other.send(demo.make_key(f"{key_name}-key"))) == (401, "signature_invalid")


def test_binding_freeing_and_deleting_a_signing_key_hold_for_the_next_call(
    demo: LingpaiServer, key_name: str
) -> None:
    client: TokenClient = make_client(demo, key_name)
    token = client.token()
    assert call(demo, token, model="lingpai/eliza").status == 200

    demo.cli("clients", "require-signature", key_name)
    bound = call(demo, token, model="lingpai/eliza")
    demo.cli("clients", "require-signature", key_name, "--lift")
    freed = call(demo, token, model="lingpai/eliza")

    assert (refused(bound), freed.status) == ((401, "signature_required"), 200)


def test_a_deleted_signing_key_is_refused_on_the_next_call(hmac_signed: SignedClient) -> None:
    token = hmac_signed.client.token()
    assert hmac_signed.send(token).status == 200

    hmac_signed.server.admin("DELETE", f"{hmac_signed.path}/{hmac_signed.signing_key_id}")

    assert refused(hmac_signed.send(token)) == (401, "signature_invalid")


def test_a_signed_call_stops_with_its_client(hmac_signed: SignedClient) -> None:
    token = hmac_signed.client.token()
    assert hmac_signed.send(token).status == 200

    hmac_signed.server.cli("clients", "disable", hmac_signed.client.id)
    disabled = hmac_signed.send(token)
    hmac_signed.server.cli("clients", "delete", hmac_signed.client.id, "--yes")

    assert refused(disabled) == (401, "key_disabled")
    assert hmac_signed.send(token).status == 401


def test_signing_keys_from_the_command_line(demo: LingpaiServer, key_name: str) -> None:
    demo.cli("clients", "create", key_name, "--signature-required")

    made = demo.cli("clients", "signing-keys", "create", key_name, "ci", "--algorithm", "hmac-sha256")
    listed = demo.cli_json("clients", "signing-keys", "list", key_name)
    shown = demo.cli("clients", "show", key_name).stdout
    deleted = demo.cli("clients", "signing-keys", "delete", key_name, listed[0]["id"])

    assert made.stdout.startswith("sg-lp-")
    assert made.stdout.strip() not in made.stderr
    assert [each["name"] for each in listed] == ["ci"]
    assert "required" in shown
    assert (deleted.returncode, demo.cli_json("clients", "signing-keys", "list", key_name)) == (0, [])
