"""Fronts whose connection is encrypted."""

import asyncio
from typing import Any, ClassVar, Final

from lingpai.lane.front import Front
from lingpai.lane.kernel import unacknowledged_bytes
from lingpai.lane.paced_transport import PacedTransport

NAMES: Final = ("DNS", "email", "URI")
_NO_CERTIFICATE: Final = (
    400,
    "This server talks to clients with a certificate only, and yours sent none that was verified.",
)


class TlsFront(Front):
    """Knows whose certificate the client has shown, and turns away who has none where one is required."""

    requires_certificate: ClassVar[bool] = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        self._paced = PacedTransport(transport, self.loop)
        super().connection_made(self._paced)
        certificate = transport.get_extra_info("peercert")
        if certificate:
            self.certificate_names = verified_names(certificate)
        elif self.requires_certificate and not self._deaf:
            self._turn_away(*_NO_CERTIFICATE)

    def connection_lost(self, exc: Exception | None) -> None:
        self._paced.drop()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        self._paced.pause()
        if not self.flow.write_paused:
            super().pause_writing()

    def resume_writing(self) -> None:
        if self._paced.resume():
            super().resume_writing()

    def _untaken(self) -> int:
        """While closing, also what is in the kernel alone: the connection waits for that to be taken."""
        if self.transport.is_closing():
            return self.unsent_bytes + unacknowledged_bytes(self.transport)
        return super()._untaken()


def verified_names(certificate: dict[str, Any]) -> tuple[str, ...]:
    """The names in a verified certificate, as the standard library tells of it: the alternative ones, else the common one.

    Where there are alternative names, the common one means nothing (RFC 9525, section 2).
    """
    names = tuple(value for kind, value in certificate.get("subjectAltName", ()) if kind in NAMES)
    if names:
        return names
    subject = [pair for relative in certificate.get("subject", ()) for pair in relative]
    return tuple(value for kind, value in subject if kind == "commonName")
