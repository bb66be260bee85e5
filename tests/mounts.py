"""Whether tests may mount a file system of their own, to fill it: not in every container."""

import shutil
import subprocess


def can_mount() -> bool:
    """Whether this machine lets us mount a file system, and come back into its namespace."""
    if not all(shutil.which(each) for each in ("unshare", "nsenter")):
        return False
    probe = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs none /mnt"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0
