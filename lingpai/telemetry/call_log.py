"""One line per model call in the log, for those who ask for it (`server.log_calls`). Never prompts, answers or keys."""

import logging
from collections.abc import Sequence
from typing import Final, Protocol

_log: Final = logging.getLogger("lingpai.calls")


class LoggedCall(Protocol):
    """What a usage record knows of a call."""

    # Properties, because a record cannot be written to.
    @property
    def request_id(self) -> str: ...
    @property
    def key_id(self) -> str | None: ...
    @property
    def client_id(self) -> str: ...
    @property
    def user_id(self) -> str: ...
    @property
    def project_id(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def endpoint(self) -> str: ...
    @property
    def status(self) -> int: ...
    @property
    def end_reason(self) -> str: ...
    @property
    def duration_ms(self) -> float: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def completion_tokens(self) -> int: ...
    @property
    def client_address(self) -> str: ...


class CallLog:
    """Writes the lines. There is none while they are not asked for: whoever may call it checks for None."""

    def __init__(self) -> None:
        _log.setLevel(logging.INFO)  # asked for explicitly, so `log_level` does not hide them

    def write(
        self, call: LoggedCall, *, token_id: str | None = None, certificate_names: Sequence[str] = ()
    ) -> None:
        """A call whose caller is known; a field that does not concern it is empty, so that all lines are alike.

        `token_id` is the public id of the access token that it came with; `certificate_names` are those of the client's
        certificate, if it has one.
        """
        certificate = {"certificate": " ".join(certificate_names)} if certificate_names else {}
        self._write(
            call.request_id,
            status=call.status,
            end=call.end_reason,
            ms=round(call.duration_ms, 1),
            endpoint=call.endpoint,
            model=call.model,
            key=call.key_id or "",
            client=call.client_id,
            token=token_id or "",
            user=call.user_id,
            project=call.project_id,
            prompt_tokens=call.prompt_tokens,
            completion_tokens=call.completion_tokens,
            address=call.client_address,
            **certificate,
        )

    def write_refused(
        self, request_id: str, *, status: int, endpoint: str, duration_ms: float, address: str
    ) -> None:
        """A call that was refused before it was known who called."""
        self._write(
            request_id,
            status=status,
            end="refused",
            ms=round(duration_ms, 1),
            endpoint=endpoint,
            address=address,
        )

    def _write(self, request_id: str, **fields: str | float) -> None:
        _log.info("call %s", request_id, extra={"request_id": request_id, "fields": fields})
