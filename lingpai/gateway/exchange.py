"""One model call on its way through the gateway: the story, in order.

The front tells what the caller does (`body_part`, `body_complete`, `caller_left`, …), the lane tells what the backend
does (`response_started`, `response_data`, …). In between the steps run, straight through and in order. A step that
cannot go on raises LingpaiError, and the caller gets it as an answer; whatever happens, there is one usage record.
"""

import logging
import time
from typing import TYPE_CHECKING, Any

from lingpai.errors import LingpaiError
from lingpai.gateway import admit, authenticate, read, relay, route, settle
from lingpai.gateway.endpoints import Endpoint
from lingpai.ids import new_request_id
from lingpai.principal import Principal

if TYPE_CHECKING:
    from lingpai.catalog.interfaces import Model
    from lingpai.gateway.authenticate import Account
    from lingpai.gateway.gateway import Gateway
    from lingpai.lane.front import Front
    from lingpai.lane.upstream import Upstream
    from lingpai.wire.usage import Usage


log = logging.getLogger("lingpai.gateway")


class Exchange:
    """The state of one call. The steps fill it in, in the order in which the fields stand here."""

    # authenticate
    principal: Principal | None = None
    account: "Account" = None  # type: ignore[assignment]  # set together with the principal
    is_key_settled = False
    refusal: LingpaiError | None = None
    # read
    is_body_complete = False
    upload: bytes | bytearray = b""
    body = b""
    request: Any = None
    # route
    model_name = ""
    model: "Model" = None  # type: ignore[assignment]  # set by route
    # admit
    is_admitted = False
    # relay
    upstream: "Upstream | None" = None
    retries = 0
    status = 0
    first_byte_at = 0.0
    stream: relay.Stream | None = None
    extra_headers = b""
    retry_after: bytes | None = None
    answer: bytes | bytearray = b""
    usage: "Usage | None" = None
    # settle
    is_over = False
    final = b""

    def __init__(
        self,
        gateway: "Gateway",
        front: "Front",
        endpoint: Endpoint,
        *,
        model_in_path: str | None,
        fields: dict[bytes, bytes],
    ) -> None:
        self.gateway = gateway
        self.front = front
        self.endpoint = endpoint
        self.model_in_path = model_in_path
        self.fields = fields
        self.request_id = new_request_id()
        self.started = gateway.loop.time()
        self.started_at = time.time()
        self.keep_alive: bool = front.parser.should_keep_alive()
        self.cors = gateway.cross_origin.lines(fields[b"origin"]) if b"origin" in fields else b""

    # -- the story

    def proceed(self) -> None:
        """Take the steps, as soon as the body is complete and the key is known."""
        if not (self.is_body_complete and self.is_key_settled):
            return
        try:
            if self.refusal is not None:
                raise self.refusal
            authenticate.check(self)
            read.read(self)
            route.route(self)
            path, body = self.endpoint.prepare(self)
            admit.admit(self)
            relay.send(self, path, body)
        except LingpaiError as error:
            settle.refuse(self, error)
        except Exception:  # the outermost edge of a call: whatever went wrong, the caller gets an answer
            log.exception("call %s failed", self.request_id.decode())
            settle.refuse(self, settle.internal_error(self))

    # -- the caller's side

    def body_part(self, data: bytes) -> None:
        if self.is_over:
            return
        if not self.upload:
            self.upload = data  # the usual request comes in one piece, which is not copied
        else:
            if isinstance(self.upload, bytes):
                self.upload = bytearray(self.upload)
            self.upload += data
        if len(self.upload) > self.gateway.settings.max_body_bytes:
            settle.refuse_unread(self, read.too_large(self.gateway.settings))

    def body_complete(self) -> None:
        self.is_body_complete = True
        if not self.is_over:
            self.proceed()

    def caller_left(self) -> None:
        if not self.is_over:
            relay.cancel(self)
            settle.abandon(self)

    def pause(self) -> None:
        if self.upstream is not None:
            self.upstream.pause()

    def resume(self) -> None:
        if self.upstream is not None:
            self.upstream.resume()

    def stop(self) -> None:
        if not self.is_over:
            relay.cancel(self)
            settle.stop(self)

    # -- the backend's side

    response_started = relay.started
    response_data = relay.data
    response_quiet = relay.quiet
    response_finished = relay.finished
    response_failed = relay.failed

    # -- the journal's side

    recorded = settle.recorded
