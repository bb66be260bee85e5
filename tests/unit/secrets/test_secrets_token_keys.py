"""Keys that sign tokens: published before use, kept until their last token has ended, shared by servers, sealed."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from joserfc import jwt
from joserfc.jwk import JWKRegistry, OKPKey, RSAKey
from secrets_fakes import Clock
from sqlalchemy import select, update

from lingpai.errors import LingpaiError
from lingpai.secrets.interfaces import Algorithm
from lingpai.secrets.tables import token_signing_keys
from lingpai.secrets.token_keys import LONGEST_TOKEN_LIFE_S, PUBLISHED_BEFORE_USE_S, TokenKeys
from lingpai.storage.database import Database
from lingpai.storage.sealing import RootKeys, Sealer, SealError

ALGORITHMS: tuple[Algorithm, ...] = ("EdDSA", "RS256")
JWK = {"EdDSA": OKPKey, "RS256": RSAKey}


def rotate(database: Database, token_keys: TokenKeys, *, leaked: bool = False) -> list[str]:
    with database.write() as connection:
        made = token_keys.rotate(connection, leaked=leaked)
    token_keys.forget()
    return [version.version for version in made]


def states(database: Database, token_keys: TokenKeys) -> list[tuple[str, str]]:
    with database.read() as connection:
        return [(each.version, each.state) for each in token_keys.versions(connection)]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_first_key_is_made_when_it_is_needed_and_stays(token_keys: TokenKeys, algorithm: Algorithm) -> None:
    assert token_keys.published() == []

    first = token_keys.current(algorithm)

    assert token_keys.current(algorithm) == first
    assert [(key.id, key.algorithm) for key in token_keys.published()] == [(first.id, algorithm)]


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # the name; libraries in use know no other
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_joserfc_signs_and_verifies_with_it(token_keys: TokenKeys, algorithm: Algorithm) -> None:
    signing = token_keys.current(algorithm)
    published = token_keys.find(signing.id)
    assert published is not None

    private_key = JWK[algorithm].import_key(signing.private_key)
    public_key = JWK[algorithm].import_key(published.public_key)
    token = jwt.encode(
        {"alg": algorithm, "kid": signing.id}, {"sub": "x"}, private_key, algorithms=[algorithm]
    )

    assert jwt.decode(token, public_key, algorithms=[algorithm]).claims == {"sub": "x"}
    assert not public_key.is_private
    assert JWKRegistry.import_key(public_key.as_dict()).is_private is False


def test_private_key_is_never_shown(token_keys: TokenKeys) -> None:
    assert "private_key" not in repr(token_keys.current("EdDSA"))


def test_servers_on_one_database_share_the_keys(database: Database, sealer: Sealer, clock: Clock) -> None:
    """Also those that have looked before there was one, and all make the first one together."""
    servers = [TokenKeys(database, sealer, clock=clock) for _ in range(8)]
    assert [server.published() for server in servers] == [[]] * 8

    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda server: server.current("EdDSA"), servers))

    assert len(made) == 1


def test_restart_keeps_the_key(
    database: Database, token_keys: TokenKeys, root_keys: RootKeys, clock: Clock
) -> None:
    assert TokenKeys(database, Sealer(root_keys), clock=clock).current("EdDSA") == token_keys.current("EdDSA")


def test_successor_is_published_long_before_it_is_used(
    database: Database, token_keys: TokenKeys, clock: Clock
) -> None:
    old = token_keys.current("EdDSA")
    (new,) = rotate(database, token_keys)

    assert [key.id for key in token_keys.published()] == [old.id, new]
    assert states(database, token_keys) == [(old.id, "current"), (new, "next")]
    clock.now += PUBLISHED_BEFORE_USE_S - 0.01
    assert token_keys.current("EdDSA").id == old.id
    clock.now += 0.01
    assert token_keys.current("EdDSA").id == new
    assert states(database, token_keys) == [(old.id, "old"), (new, "current")]


def test_old_key_verifies_until_its_last_token_has_ended(
    database: Database, token_keys: TokenKeys, clock: Clock
) -> None:
    old = token_keys.current("EdDSA")
    rotate(database, token_keys)
    clock.now += PUBLISHED_BEFORE_USE_S + LONGEST_TOKEN_LIFE_S - 0.01

    assert token_keys.find(old.id) is not None
    clock.now += 0.01
    assert token_keys.find(old.id) is None
    token_keys.remove_ended()
    with database.read() as connection:
        assert len(connection.execute(select(token_signing_keys)).all()) == 1


def test_rotation_is_for_every_algorithm_in_use(database: Database, token_keys: TokenKeys) -> None:
    for algorithm in ALGORITHMS:
        token_keys.current(algorithm)

    assert len(rotate(database, token_keys)) == 2


def test_rotating_twice_keeps_everybody_verifiable(
    database: Database, token_keys: TokenKeys, clock: Clock
) -> None:
    first = token_keys.current("EdDSA").id
    (second,) = rotate(database, token_keys)
    clock.now += PUBLISHED_BEFORE_USE_S / 2
    (third,) = rotate(database, token_keys)

    used = {}
    for _ in range(300):
        used.setdefault(token_keys.current("EdDSA").id, clock.now)
        last = clock.now - LONGEST_TOKEN_LIFE_S
        signed = [
            id_ for id_, since in used.items() if since >= last or id_ == token_keys.current("EdDSA").id
        ]
        assert all(token_keys.find(id_) for id_ in signed)
        clock.now += 600
    assert list(used) == [first, second, third]


def test_leaked_key_signs_and_verifies_nothing_from_now_on(
    database: Database, token_keys: TokenKeys, sealer: Sealer, clock: Clock
) -> None:
    other = TokenKeys(database, sealer, clock=clock)
    old = token_keys.current("EdDSA")
    assert other.current("EdDSA") == old

    (new,) = rotate(database, token_keys, leaked=True)
    clock.now += 1.01  # how soon another server notices

    for server in (token_keys, other):
        assert server.current("EdDSA").id == new
        assert server.find(old.id) is None


def test_leaked_ends_the_next_one_too(database: Database, token_keys: TokenKeys, clock: Clock) -> None:
    token_keys.current("EdDSA")
    rotate(database, token_keys)
    (new,) = rotate(database, token_keys, leaked=True)

    clock.now += PUBLISHED_BEFORE_USE_S + 1

    assert token_keys.current("EdDSA").id == new
    assert [key.id for key in token_keys.published()] == [new]


def test_nothing_to_rotate_is_told(database: Database, token_keys: TokenKeys) -> None:
    with pytest.raises(LingpaiError, match="no signing key yet"):
        rotate(database, token_keys)


def test_retiring_is_refused_while_tokens_may_be_valid(
    database: Database, token_keys: TokenKeys, clock: Clock
) -> None:
    old = token_keys.current("EdDSA").id
    (new,) = rotate(database, token_keys)

    def refusal(id_: str) -> str:
        with database.write() as connection, pytest.raises(LingpaiError) as caught:
            token_keys.retire(connection, id_)
        return caught.value.message

    assert "signs tokens now" in refusal(old)
    assert "is the next one" in refusal(new)
    clock.now += PUBLISHED_BEFORE_USE_S
    assert "valid for 24.0 hours more" in refusal(old)
    assert "There is no signing key" in refusal("../../etc/passwd")
    clock.now += LONGEST_TOKEN_LIFE_S
    with database.write() as connection:
        token_keys.retire(connection, old)


def test_rotation_that_is_rolled_back_never_was(database: Database, token_keys: TokenKeys) -> None:
    first = token_keys.current("EdDSA").id

    def rotate_and_fail() -> None:
        with database.write() as connection:
            token_keys.rotate(connection, leaked=True)
            raise InterruptedError

    with pytest.raises(InterruptedError):
        rotate_and_fail()

    assert token_keys.current("EdDSA").id == first
    assert [key.id for key in token_keys.published()] == [first]


def test_hostile_ids_find_nothing(token_keys: TokenKeys) -> None:
    token_keys.current("EdDSA")

    assert not any(token_keys.find(id_) for id_ in ("", "x" * 10_000, "' OR 1=1 --", "../../key", "\ud800"))


def test_key_of_another_row_does_not_open(
    database: Database, token_keys: TokenKeys, sealer: Sealer, clock: Clock
) -> None:
    for algorithm in ALGORITHMS:
        token_keys.current(algorithm)
    with database.write() as connection:
        sealed = connection.scalar(
            select(token_signing_keys.c.sealed_private_key).where(token_signing_keys.c.algorithm == "RS256")
        )
        connection.execute(update(token_signing_keys).values(sealed_private_key=sealed))

    with pytest.raises(SealError):
        TokenKeys(database, sealer, clock=clock).current("EdDSA")
