"""The keys that sign JWT access tokens: published before they are used, kept until their last token has ended.

They are in the database, sealed, so that every server on it signs with the same one and knows the next. One is made when
the first token of its algorithm is signed. A rotation publishes its successor at once and uses it an hour later, when
everybody who keeps our key set for that long has it; what the old one has signed is accepted for another day, the longest
life that a token may have.
"""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from sqlalchemy import Connection

from lingpai.errors import LingpaiError
from lingpai.ids import new_id
from lingpai.secrets.interfaces import Algorithm, SecretVersion, SigningTokenKey, State, TokenKey
from lingpai.secrets.store import SqlTokenKeyStore
from lingpai.secrets.tables import SEALED_PRIVATE_KEYS
from lingpai.storage.database import Database
from lingpai.storage.sealing import Sealer

PUBLISHED_BEFORE_USE_S: Final = 3600.0
"""Nobody should keep the published key set for longer than that."""
LONGEST_TOKEN_LIFE_S: Final = 86_400.0
"""No signed token may live longer: its key would be gone."""
READ_AGAIN_S: Final = 1.0
"""How soon a rotation by another server is noticed."""
_RSA_BITS: Final = 2048
_RSA_EXPONENT: Final = 65_537


class TokenKeys:
    """The keys of this server and of all on the same database. All methods block; any thread may call them.

    Fulfils `ManagedSecrets`.
    """

    def __init__(self, database: Database, sealer: Sealer, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._sealer = sealer
        self._clock = clock
        self._store = SqlTokenKeyStore()
        self._making = threading.Lock()
        self._read: tuple[float, tuple[TokenKey, ...]] | None = None
        self._signing: dict[str, SigningTokenKey] = {}

    # -- what signing and verifying need

    def current(self, algorithm: Algorithm) -> SigningTokenKey:
        """The key that signs now; made when there is none yet. Raises SealError when the root key does not open it."""
        key = _in_use(self._all(), algorithm, self._clock())
        if key is None:
            with self._making:
                key = self._made_first(algorithm)
        signing = self._signing.get(key.id)
        if signing is None:
            signing = self._signing[key.id] = self._opened(key)
        return signing

    def published(self) -> list[TokenKey]:
        """Every key whose tokens are accepted or soon will be: what `/.well-known/jwks.json` lists."""
        now = self._clock()
        return [key for key in self._all() if key.verify_until is None or key.verify_until > now]

    def find(self, id_: str) -> TokenKey | None:
        """The published key with this `kid`, which is as hostile as any text of a caller; None for any other."""
        return _with_id(self.published(), id_)

    # -- what operators do (interfaces.ManagedSecrets)

    def versions(self, connection: Connection) -> list[SecretVersion]:
        """Every key that is still published, by the time it comes into use."""
        now, keys = self._clock(), self._store.all(connection)
        return [
            _version(key, _state(keys, key, now))
            for key in keys
            if key.verify_until is None or key.verify_until > now
        ]

    def rotate(self, connection: Connection, *, leaked: bool) -> list[SecretVersion]:
        """Publish a successor of the key of each algorithm in use; with `leaked`, use it at once and end all others.

        Raises LingpaiError when there is no key yet.
        """
        now = self._clock()
        algorithms = {key.algorithm for key in self._store.all(connection)}
        if not algorithms:
            raise LingpaiError(
                "invalid_request",
                "There is no signing key yet: one is made when the first token is signed. Nothing needs to be done.",
                param="kind",
            )
        use_from = now if leaked else now + PUBLISHED_BEFORE_USE_S
        made = []
        for algorithm in sorted(algorithms):
            key = self._insert(connection, algorithm, use_from=use_from)
            until = now if leaked else use_from + LONGEST_TOKEN_LIFE_S
            self._store.end_others(connection, algorithm, key.id, verify_until=until)
            made.append(key.id)
        return [each for each in self.versions(connection) if each.version in made]

    def retire(self, connection: Connection, version: str) -> None:
        """Remove a key before its time. Raises LingpaiError while its tokens may be valid."""
        now, keys = self._clock(), self._store.all(connection)
        key = _with_id(keys, version)
        if key is None:
            raise LingpaiError(
                "not_found",
                f"There is no signing key `{version[:40]}`. `lingpai secrets list` shows what there is.",
                param="version",
            )
        if key.verify_until is None or key.verify_until > now:
            raise LingpaiError("invalid_request", _needed_because(keys, key, now), param="version")
        self._store.delete(connection, key.id)

    def forget(self) -> None:
        """Read the database again at the next question, because a rotation was committed."""
        self._read = None

    def remove_ended(self) -> None:
        """Remove the keys whose tokens have all ended; to be called now and then."""
        now = self._clock()
        if any(key.verify_until is not None and key.verify_until <= now for key in self._all()):
            with self._database.write() as connection:
                self._store.delete_ended(connection, now)
            self._read = None
        left = {key.id for key in self._all()}
        for id_ in self._signing.keys() - left:
            self._signing.pop(id_, None)

    # -- details

    def _all(self) -> tuple[TokenKey, ...]:
        read, now = self._read, self._clock()
        if read is None or abs(now - read[0]) > READ_AGAIN_S:
            with self._database.read() as connection:
                read = self._read = (now, tuple(self._store.all(connection)))
        return read[1]

    def _made_first(self, algorithm: Algorithm) -> TokenKey:
        """The first key may be used at once: nobody has kept a key set without it, for there was none to need."""
        now = self._clock()
        with self._database.write() as connection:  # another server may be making one: one of both waits here
            key = _in_use(self._store.all(connection), algorithm, now)
            key = key or self._insert(connection, algorithm, use_from=now)
        self._read = None
        return key

    def _insert(self, connection: Connection, algorithm: Algorithm, *, use_from: float) -> TokenKey:
        private_key, public_key = _make_pair(algorithm)
        key = TokenKey(
            id=new_id("tsk"),
            algorithm=algorithm,
            public_key=public_key,
            created_at=self._clock(),
            use_from=use_from,
        )
        row: dict[str, Any] = {
            "id": key.id,
            "algorithm": algorithm,
            "public_key": public_key,
            "sealed_private_key": self._sealer.seal(SEALED_PRIVATE_KEYS.purpose, key.id, private_key),
            "created_at": key.created_at,
            "use_from": use_from,
        }
        self._store.insert(connection, row)
        return key

    def _opened(self, key: TokenKey) -> SigningTokenKey:
        with self._database.read() as connection:
            sealed = self._store.sealed(connection, key.id)
        if sealed is None:  # retired by another server since
            self._read = None
            return self.current(key.algorithm)
        private_key = self._sealer.open(SEALED_PRIVATE_KEYS.purpose, key.id, sealed)
        return SigningTokenKey(id=key.id, algorithm=key.algorithm, private_key=private_key)


def _in_use(keys: Iterable[TokenKey], algorithm: Algorithm, now: float) -> TokenKey | None:
    """The key of the algorithm that came into use last."""
    usable = [
        key
        for key in keys
        if key.algorithm == algorithm
        and key.use_from <= now
        and (key.verify_until is None or key.verify_until > now)
    ]
    return usable[-1] if usable else None


def _with_id(keys: Iterable[TokenKey], id_: str) -> TokenKey | None:
    return next((key for key in keys if key.id == id_), None)


def _state(keys: Iterable[TokenKey], key: TokenKey, now: float) -> State:
    if key.use_from > now:
        return "next"
    return "current" if _in_use(keys, key.algorithm, now) == key else "old"


def _version(key: TokenKey, state: State) -> SecretVersion:
    return SecretVersion(
        kind="signing",
        version=key.id,
        state=state,
        place="database",
        created_at=key.created_at,
        algorithm=key.algorithm,
        use_from=key.use_from,
        verify_until=key.verify_until,
    )


def _needed_because(keys: Iterable[TokenKey], key: TokenKey, now: float) -> str:
    leaked = "If it leaked: `lingpai secrets rotate signing --leaked`."
    match _state(keys, key, now):
        case "next":
            return f"The signing key {key.id} is the next one, and published already. {leaked}"
        case "current":
            return f"The signing key {key.id} signs tokens now. Rotate first: `lingpai secrets rotate signing`. {leaked}"
        case "old":
            left = (key.verify_until or now) - now
            return (
                f"Tokens that {key.id} has signed may be valid for {left / 3600:.1f} hours more; it goes by itself then."
                f" {leaked}"
            )


def _make_pair(algorithm: Algorithm) -> tuple[bytes, bytes]:
    """A new key pair: PKCS #8 and SubjectPublicKeyInfo, both DER."""
    # Loaded with the first key that is made, and most servers sign no tokens: 9 MB of memory.
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa  # noqa: PLC0415

    private_key: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
    if algorithm == "EdDSA":
        private_key = ed25519.Ed25519PrivateKey.generate()
    else:
        private_key = rsa.generate_private_key(public_exponent=_RSA_EXPONENT, key_size=_RSA_BITS)
    return (
        private_key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        private_key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
    )
