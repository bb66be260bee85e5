"""The usage journal: the server's side, where "answered means recorded" is kept."""

import logging
import os
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final
from zlib import crc32

import msgspec

from lingpai.metering.framing import HEADER_BYTES, MAX_PAYLOAD_BYTES, pack_frame_header
from lingpai.metering.records import UsageRecord
from lingpai.metering.segments import Position, create_segment
from lingpai.metering.settings import MeteringSettings
from lingpai.metering.syncing import Loop, Syncer

Then = Callable[[bool | None], None]
"""What follows a record: True when it is safe, False when it is not in the journal. None when it is, and may be loaded,
but the disk did not confirm it."""
Write = Callable[[int, bytes], int]

_log = logging.getLogger("lingpai.metering")

_SYNC_INTERVAL_S: Final = 1.0
_PROBE_INTERVAL_S: Final = 1.0
_PROBE_BYTES: Final = 64 * 1024
_PROBE_NAME: Final = "probe"


class Journal:
    """Appends usage records to segment files. All methods are called on the event loop's thread.

    Everything appended during one turn of the loop goes out in one write at the start of the next; only then are the
    callbacks run, in order. With ``fsync = "always"`` they also wait for the disk, in groups.

    `healthy` is False from a failed write or sync until a probe of the same disk works, its sync included. That is
    tried by itself once a second, so a server that turns calls away meanwhile recovers without one, and a disk on which
    only some writes work does not make it waver.
    `written` is how many records were written since the start.
    """

    def __init__(
        self,
        directory: Path,
        loop: Loop,
        settings: MeteringSettings,
        *,
        write: Write = os.write,
        fsync: Callable[[int], None] = os.fsync,
    ) -> None:
        """Open a new segment in `directory`, which is made if need be. Raises OSError when that is impossible."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.healthy = True
        self.written = 0
        self._directory = directory
        self._loop = loop
        self._settings = settings
        self._write = write
        self._fsync = fsync
        self._syncer = Syncer(loop, fsync=fsync)
        self._sync_is_due = False
        self._is_closed = False

        self._salt = secrets.randbits(32)
        self._encode = msgspec.msgpack.Encoder().encode
        self._frames: list[bytes] = []
        self._callbacks: list[Then] = []

        self._is_torn = False
        self._remove_leftovers()
        self._segment, self._descriptor = self._create_segment()
        self._size = HEADER_BYTES

    @property
    def directory(self) -> Path:
        """Where the segment files are."""
        return self._directory

    @property
    def position(self) -> Position:
        """The end of what is written: a reader that has come this far has seen every answered call."""
        return self._segment, self._size

    def append(self, record: UsageRecord, then: Then) -> None:
        """Record one exchange, and call `then` when it is known whether it is safe.

        Raises what msgspec raises for a record that cannot be encoded (a number over 64 bits, a lone surrogate) and
        ValueError for one over 64 kB; nothing is recorded then and `then` is not called.
        """
        payload = self._encode(record)
        size = len(payload)
        if size > MAX_PAYLOAD_BYTES:
            raise ValueError(f"usage record of {size} bytes; at most {MAX_PAYLOAD_BYTES} are possible")
        self._frames.append(pack_frame_header(size, crc32(payload, self._salt)) + payload)
        self._callbacks.append(then)
        if len(self._frames) == 1:
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        """Write what is pending, force it to the disk unless ``fsync = "never"``, run its callbacks, and stop."""
        self._flush()
        self._is_closed = True
        if self._settings.fsync == "never":
            self._syncer.stop()
            os.close(self._descriptor)
        else:
            self._syncer.close(self._descriptor)

    def _flush(self) -> None:
        if not self._frames:
            return
        frames, self._frames = self._frames, []
        callbacks, self._callbacks = self._callbacks, []
        recorded = self._write_frames(frames)
        mode = self._settings.fsync
        if mode == "always" and recorded:
            self._syncer.sync(self._descriptor, partial(self._settle_synced, callbacks, recorded))
            return
        if mode == "interval" and not self._sync_is_due:
            self._sync_is_due = True
            self._loop.call_later(_SYNC_INTERVAL_S, self._sync)
        self._settle(callbacks, recorded)

    def _settle(self, callbacks: list[Then], recorded: int, *, are_safe: bool = True) -> None:
        """Tell the first `recorded` that they are in the journal, and the others that they are not."""
        for index, then in enumerate(callbacks):
            try:
                then((are_safe or None) if index < recorded else False)
            except Exception as error:  # noqa: BLE001  one answer's fault must not keep the others from going out
                context = {"message": "a callback of the usage journal failed", "exception": error}
                self._loop.call_exception_handler(context)

    # Writing

    def _write_frames(self, frames: list[bytes]) -> int:
        """How many of `frames`, from the first, are now in the journal: all, unless the disk is full or broken."""
        if self._is_closed or not self._ensure_segment():
            return 0
        data = b"".join(frames)
        done = 0
        try:
            while done < len(data):  # a nearly full disk takes a part first; the next write says why
                done += self._write(self._descriptor, data[done:] if done else data)
        except OSError as error:
            return self._keep_whole_frames(frames, done, error)
        self._size += done
        self.written += len(frames)
        return len(frames)

    def _keep_whole_frames(self, frames: list[bytes], done: int, error: OSError) -> int:
        """Cut off the torn frame after a failed write.

        Whole frames stay, and count as recorded: the ingester may have loaded them already.
        """
        kept = whole = 0
        for frame in frames:
            if kept + len(frame) > done:
                break
            kept += len(frame)
            whole += 1
        self._size += kept
        self.written += whole
        try:
            os.ftruncate(self._descriptor, self._size)
        except OSError:
            self._is_torn = True
        self._fail(f"cannot write the usage journal: {error}")
        return whole

    # Segments

    def _create_segment(self) -> tuple[int, int]:
        if self._settings.fsync == "never":
            return create_segment(self._directory, self._salt)
        # The file's name must survive a power failure as well. The folder is opened first: once there is a newer segment
        # the reader leaves this one, so nothing may fail between that and writing there.
        folder = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            created = create_segment(self._directory, self._salt)
        except OSError:
            os.close(folder)
            raise
        self._syncer.retire(folder)
        return created

    def _remove_leftovers(self) -> None:
        """What a process that was killed began and gave no name."""
        for path in (*self._directory.glob("*.new"), self._directory / _PROBE_NAME):
            path.unlink(missing_ok=True)

    def _ensure_segment(self) -> bool:
        """Start a new segment when the present one is full or damaged; False when there is none to write to."""
        if self._size < self._settings.segment_bytes and not self._is_torn:
            return True
        old = self._descriptor
        try:
            self._segment, self._descriptor = self._create_segment()
        except OSError as error:
            if self._is_torn:
                self._fail(f"cannot start a new segment of the usage journal: {error}")
            return not self._is_torn  # one that is merely full can grow a little longer
        self._size = HEADER_BYTES
        self._is_torn = False
        if self._settings.fsync == "never":
            os.close(old)
        else:
            self._syncer.retire(old)
        return True

    # Syncing

    def _sync(self) -> None:
        if not self._is_closed:
            self._sync_is_due = False
            self._syncer.sync(self._descriptor, self._note_sync)

    def _note_sync(self, synced: bool) -> None:
        if not synced:
            # After a failed fsync the kernel may call the same pages clean, so this file is not to be trusted again.
            self._is_torn = True
            self._fail("cannot force the usage journal to the disk")

    def _settle_synced(self, callbacks: list[Then], recorded: int, synced: bool) -> None:
        self._note_sync(synced)
        self._settle(callbacks, recorded, are_safe=synced)

    # Health

    def _fail(self, reason: str) -> None:
        if self.healthy:
            self.healthy = False
            _log.error("%s; calls are turned away until it works again", reason)
            self._loop.call_later(_PROBE_INTERVAL_S, self._probe)

    def _probe(self) -> None:
        if not self._is_closed:
            self._syncer.probe(self._has_room, self._note_probe)

    def _note_probe(self, works: bool) -> None:
        if self._is_closed:
            return
        if works and self._ensure_segment():
            self.healthy = True
            _log.warning("the usage journal can be written again")
        else:
            self._loop.call_later(_PROBE_INTERVAL_S, self._probe)

    def _has_room(self) -> bool:
        """Whether a file can be made, written and forced to the disk. Runs in the syncer's thread: a disk may hang."""
        path = self._directory / _PROBE_NAME
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                is_written = self._write(descriptor, bytes(_PROBE_BYTES)) == _PROBE_BYTES
                if self._settings.fsync != "never":
                    self._fsync(descriptor)
                return is_written
            finally:
                os.close(descriptor)
                path.unlink()
        except OSError:
            return False
