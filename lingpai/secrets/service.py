"""The rules of listing, rotating and retiring the server's secrets. Nothing here ever hands one out."""

from collections.abc import Callable, Mapping

from lingpai.errors import LingpaiError
from lingpai.principal import Principal
from lingpai.secrets.interfaces import Kind, ManagedSecrets, SecretVersion
from lingpai.storage.database import Database
from lingpai.storage.trail import Deed, Trail


class Secrets:
    """All kinds of secrets; for administrators on the server's own machine. All methods block.

    Every change is recorded in the transaction that reads what depends on the secret, so that nothing new can depend on
    a version while it is taken away. Errors are LingpaiError: ``not_found``, ``invalid_request``,
    ``storage_unavailable``.
    """

    def __init__(
        self,
        database: Database,
        kinds: Mapping[Kind, ManagedSecrets],
        *,
        trail: Trail,
        on_change: Callable[[Kind], None],
    ) -> None:
        """`on_change` is told, after the commit, of which kind there are other versions now."""
        self._database = database
        self._kinds = dict(kinds)
        self._trail = trail
        self._on_change = on_change

    def all(self) -> list[SecretVersion]:
        """Every version of every kind, with what needs it."""
        with self._database.read() as connection:
            return [version for kind in self._kinds.values() for version in kind.versions(connection)]

    def rotate(self, caller: Principal, kind: Kind, *, leaked: bool = False) -> list[SecretVersion]:
        """Make a new version and use it for everything new; what older ones have made goes on working.

        `leaked` ends the old ones at once; signing keys only. Returns the new version, of signing keys one for each
        algorithm.
        """
        with self._database.write() as connection:
            made = self._kinds[kind].rotate(connection, leaked=leaked)
            for version in made:
                after = {"version": version.version, "leaked": leaked}
                self._trail.record(connection, caller, _deed("secret.rotate", kind, version.version, after))
        self._on_change(kind)
        return made

    def retire(self, caller: Principal, kind: Kind, version: str) -> None:
        """Take a version away for good; refused, with how many of what, while anything needs it."""
        with self._database.write() as connection:
            self._trail.record(connection, caller, _deed("secret.retire", kind, version, None))
            self._kinds[kind].retire(connection, version)
        self._on_change(kind)


def check_is_local(*, is_local: bool) -> None:
    """Refuse whoever is not on the admin socket: no key that leaks, not even an administrator's, touches secrets."""
    if not is_local:
        raise LingpaiError(
            "insufficient_scope",
            "The server's secrets are managed on its own machine only: run `lingpai secrets` there.",
        )


def _deed(action: str, kind: Kind, version: str, after: Mapping[str, object] | None) -> Deed:
    return Deed(
        action=action, target_kind="secret", target_id=f"{kind} {version}", target_name=kind, after=after
    )
