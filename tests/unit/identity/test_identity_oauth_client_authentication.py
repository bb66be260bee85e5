"""Which client asks: brute force, floods and right secrets (RFC 6749 sections 2.3 and 2.3.1)."""

import pytest
from identity_fakes import Clock
from oauth_stage import Program, Stage

from lingpai.identity.oauth.schemas import SecretRotation
from lingpai.identity.peppers import Peppers
from lingpai.ids import mint_credential


def ask(stage: Stage, program: Program, *, address: str = "192.0.2.1"):
    return stage.token("client_credentials", program=program, address=address)


def forged(program: Program) -> Program:
    """The same client with another secret whose form is right."""
    return Program(program.id, mint_credential("cs-lp-", public_id=program.id[6:]).token)


def nobody() -> Program:
    """A client that there is not, with a secret of the right form."""
    minted = mint_credential("cs-lp-")
    return Program(f"cl-lp-{minted.id}", minted.token)


@pytest.fixture
def program(stage: Stage) -> Program:
    return stage.program("program")


def test_rfc6749_s2_3_1_failures_of_one_address_are_bounded(stage: Stage, program: Program):
    """After twenty failures an address has to wait, and is told how long; others are not concerned."""
    statuses = [ask(stage, forged(program)).status for _ in range(25)]

    assert statuses == [401] * 20 + [429] * 5
    refused = ask(stage, forged(program))
    assert (refused.status, refused.error) == (429, "temporarily_unavailable")
    assert int(refused.headers["retry-after"]) >= 1
    assert ask(stage, forged(program), address="192.0.2.2").status == 401


def test_address_that_waits_may_try_again(stage: Stage, program: Program):
    """The bound is a rate: it never becomes a lock."""
    for _ in range(25):
        ask(stage, forged(program))

    stage.monotonic.now += 1

    assert ask(stage, forged(program)).status == 401


def test_rfc6749_s2_3_1_failures_of_all_addresses_together_are_bounded(stage: Stage, program: Program):
    """Many addresses get no more than a server can bear."""
    statuses = [ask(stage, forged(program), address=f"192.0.2.{number}").status for number in range(1100)]

    assert statuses.count(401) == 1000
    assert set(statuses[1000:]) == {429}


@pytest.mark.parametrize("attack", ["forged", "unknown"])
def test_right_secret_always_passes(stage: Stage, program: Program, attack: str):
    """Whatever others try, from the same address or from everywhere, nobody locks a client out (RFC 6749 s2.3.1)."""
    for number in range(1100):
        wrong = forged(program) if attack == "forged" else nobody()
        ask(stage, wrong, address="192.0.2.1" if number % 2 else f"198.51.100.{number % 250}")
    stage.keyring.forget_key("whatever")  # it must be read from the database, too

    assert ask(stage, program).status == 200


def test_new_client_passes_while_others_attack(stage: Stage):
    """A client that was never asked for before is not refused with those that there are not."""
    for number in range(1100):
        ask(stage, nobody(), address=f"198.51.100.{number % 250}")

    assert ask(stage, stage.program("made later"), address="198.51.100.7").status == 200


def test_unknown_client_and_wrong_secret_are_answered_alike(stage: Stage, program: Program):
    """Body, status and headers are the same, also where no secret is sent, and after too many failures."""
    for of_unknown, of_known in (
        (nobody(), forged(program)),
        (Program(nobody().id, "guess"), Program(program.id, "guess")),
        (Program(nobody().id, None), Program(program.id, None)),
    ):
        unknown, known = ask(stage, of_unknown), ask(stage, of_known)

        assert (unknown.status, unknown.body, unknown.headers) == (known.status, known.body, known.headers)
        assert unknown.status == 401
    for _ in range(30):
        unknown, known = ask(stage, nobody()), ask(stage, forged(program))
    assert (unknown.status, known.status, unknown.error) == (429, 429, known.error)


def test_neither_unknown_clients_nor_wrong_secrets_are_looked_up(stage: Stage, program: Program):
    """What differs by a look-up differs by time; and nobody keeps the database busy by trying."""
    assert ask(stage, program).status == 200
    before = stage.reader.asked

    for number in range(100):
        ask(stage, nobody(), address=f"192.0.2.{number}")
        ask(stage, forged(program), address=f"192.0.2.{number}")
        ask(stage, Program(nobody().id, None), address=f"192.0.2.{number}")
        ask(stage, Program("cl-lp-no such id", "cs-lp-x"), address=f"192.0.2.{number}")

    assert stage.reader.asked == before


def test_deleted_client_is_looked_up_once(stage: Stage, program: Program):
    """Its id is known still; that it is gone, after one look."""
    stage.clients.delete(stage.admin, program.id)

    answers = [ask(stage, program) for _ in range(5)]

    assert {answer.status for answer in answers} == {401}
    assert stage.reader.asked == 1


def test_ids_that_cannot_be_told_yet_are_looked_up_at_a_bounded_rate(stage: Stage):
    """Until all ids are read, every id counts as there; then failures bound the look-ups."""
    stage.known._ids = type(stage.client_ids)()

    for _ in range(40):
        ask(stage, nobody())

    assert stage.reader.asked == 20


def test_rotated_secret_works_until_the_overlap_is_over(stage: Stage, clock: Clock, program: Program):
    """Both secrets work for the time that was chosen, then the new one alone."""
    made = stage.clients.rotate(stage.admin, program.id, SecretRotation(overlap="1h"))
    new = Program(program.id, made.secret)
    assert (ask(stage, program).status, ask(stage, new).status) == (200, 200)

    clock.now += 3600

    assert (ask(stage, program).status, ask(stage, new).status) == (401, 200)


def test_secret_rotated_without_overlap_ends_at_once(stage: Stage, program: Program):
    """A leaked secret can be stopped now."""
    made = stage.clients.rotate(stage.admin, program.id, SecretRotation(overlap="0s"))

    assert ask(stage, program).status == 401
    assert ask(stage, Program(program.id, made.secret)).status == 200


def test_second_rotation_ends_the_first_secret(stage: Stage, program: Program):
    """Two secrets work at most."""
    first = stage.clients.rotate(stage.admin, program.id, SecretRotation(overlap="24h"))
    second = stage.clients.rotate(stage.admin, program.id, SecretRotation(overlap="24h"))

    assert ask(stage, program).status == 401
    assert ask(stage, Program(program.id, first.secret)).status == 200
    assert ask(stage, Program(program.id, second.secret)).status == 200


@pytest.mark.parametrize(
    ("change", "error"),
    [({"disabled": True}, "invalid_client"), ({"allowed_ips": ["10.0.0.0/8"]}, "unauthorized_client")],
)
def test_client_that_may_not_now_gets_no_token(stage: Stage, program: Program, change, error: str):
    """Disabled, or from another address than it may: refused with the next request."""
    assert ask(stage, program).status == 200

    stage.change_program(program, **change)

    assert ask(stage, program).error == error


def test_client_of_a_disabled_owner_gets_no_token(stage: Stage):
    """Everything of a disabled user stops."""
    stage.person("frank")
    program = stage.program("franks", user="frank")
    assert ask(stage, program).status == 200

    stage.change_person("frank", disabled=True)

    assert ask(stage, program).error == "invalid_client"


def test_expired_client_gets_no_token(stage: Stage, clock: Clock):
    """A client ends when it was told to, and its last token ends with it."""
    program = stage.program("brief", expires_in="1h")
    clock.now += 3590
    last = ask(stage, program)
    assert last.json["expires_in"] == 10

    clock.now += 10

    assert ask(stage, program).error == "invalid_client"
    assert stage.principal(last.json["access_token"]) is None


def test_secret_of_another_kind_is_no_client_secret(stage: Stage, program: Program):
    """An access token with the client's own id is no secret of it."""
    for prefix in ("sk-lp-", "at-lp-", "rt-lp-"):
        other = mint_credential(prefix, public_id=program.id[6:]).token

        assert ask(stage, Program(program.id, other)).error == "invalid_client"


def test_secret_made_under_a_pepper_that_is_gone_opens_nothing(stage: Stage, program: Program):
    """Without its pepper a stored HMAC verifies nothing, and is no fault."""
    stage.peppers._held = Peppers({2: b"q" * 32})._held
    stage.keyring.forget_client(program.id)

    assert ask(stage, program).error == "invalid_client"


def test_nothing_secret_is_in_a_repr(stage: Stage, program: Program):
    """What may end in a log or a traceback shows no secret."""
    assert ask(stage, program).status == 200
    known = stage.known.find(program.id[6:])

    for shown in (repr(known), repr(stage.server), repr(stage.peppers)):
        assert program.secret is not None
        assert program.secret[18:61] not in shown
        assert str(known.secrets[0][1]) not in shown
