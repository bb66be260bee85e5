"""`lingpai audit keys` and `rotate-key`: the keys that sign the trail, in the data directory."""

import secrets

from lingpai.audit.keys import FILE, KEY_BYTES, AuditKeyError, read_keys, write_keys
from lingpai.audit.service import SqlTrail
from lingpai.audit.signing import key_id, public_keys, public_text, rotated, signing_key_id
from lingpai.cli.database import open_database
from lingpai.cli.failures import CommandError, UsageError
from lingpai.cli.options import NO_OPTIONS, Options
from lingpai.cli.output import print_json
from lingpai.cli.server import data_directory
from lingpai.cli.tables import print_table
from lingpai.errors import LingpaiError
from lingpai.storage.trail import Deed
from lingpai.terminal import say
from lingpai.web.origin import command_origin, current_origin


def keys(*, options: Options = NO_OPTIONS) -> None:
    """Show the public keys that verify the records; the newest signs. They are no secret: keep a copy elsewhere."""
    _refuse_server(options)
    try:
        found = public_keys(read_keys(data_directory(options) / FILE))
    except (AuditKeyError, OSError) as error:
        raise CommandError(str(error)) from error
    newest = max(found)
    rows = [
        {"version": version, "key": public_text(key), "id": key_id(key), "signs": version == newest}
        for version, key in sorted(found.items())
    ]
    if options.as_json:
        print_json(rows)
        return
    cells = [(str(row["version"]), str(row["key"]), "yes" if row["signs"] else "") for row in rows]
    print_table(("version", "public key", "signs"), cells, right=("version",))


def rotate(*, options: Options = NO_OPTIONS) -> None:
    """Sign with a new key from now on, whether or not a server runs. The private half of the old key is deleted.

    What was signed with it can still be verified. Do it when somebody may have seen the file.
    """
    _refuse_server(options)
    path = data_directory(options) / FILE
    database = open_database(options)
    current_origin.set(command_origin())
    try:
        old = read_keys(path)
        new = rotated(old, secrets.token_bytes(KEY_BYTES))
        deed = Deed(
            action="audit.rotate-key",
            target_kind="trail",
            target_id="audit",
            before={"key": signing_key_id(old)},
            after={"key": signing_key_id(new)},
        )
        SqlTrail(database).note(None, deed)
        write_keys(path, new)
    except (AuditKeyError, OSError) as error:
        raise CommandError(str(error)) from error
    except LingpaiError as error:
        raise CommandError(error.message) from error
    finally:
        database.close()
    say("A new key signs from now on. `lingpai audit keys` shows it: keep a copy of it elsewhere.")


def _refuse_server(options: Options) -> None:
    if options.server is not None:
        raise UsageError("The keys are in the data directory. Run it on the server's machine, with --data.")
