"""Signing from the server, which neither loads a library for cryptography nor holds the key: see `signing.py`."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lingpai.audit.keys import AuditKeyError

TIMEOUT_S: Final = 30.0


class Signer:
    """Signs statements with the newest key of a file, in a process that ends with the signature."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def sign(self, statement: Mapping[str, Any]) -> str:
        """`statement` as one canonical line with its signature. Blocks, about a tenth of a second.

        Raises AuditKeyError when it cannot be signed.
        """
        # -P: a module in the folder that the server was started from must not stand in for one of ours
        command = [sys.executable, "-P", "-m", "lingpai.audit.signing", str(self._path)]
        try:
            outcome = subprocess.run(
                command,
                input=json.dumps(statement).encode(),
                capture_output=True,
                timeout=TIMEOUT_S,
                check=False,
                process_group=0,  # Ctrl-C is for the server, which has its last checkpoint signed then
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise AuditKeyError(f"the audit trail cannot be signed: {error}") from error
        if outcome.returncode != 0:
            why = outcome.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise AuditKeyError(f"the audit trail cannot be signed: {why}")
        return outcome.stdout.decode()
