"""One model call on its way through the gateway: the story, in order.

The front tells what the caller does (`body_part`, `body_complete`, `caller_left`, …), the lane tells what the backend
does (`response_started`, `response_data`, …). In between the steps run, straight through and in order. A step that
cannot go on raises LingpaiError, and the caller gets it as an answer; whatever happens, there is one usage record.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from lingpai.errors import LingpaiError
from lingpai.gateway import admit, authenticate, bodies, call_limits, media, read, relay, route, settle, tally
from lingpai.gateway.charge import KEPT
from lingpai.gateway.endpoints import Endpoint
from lingpai.gateway.stream import Stream
from lingpai.ids import new_request_id
from lingpai.principal import Principal
from lingpai.quotas.amounts import ONE, Amounts
from lingpai.quotas.interfaces import Subject
from lingpai.quotas.limit_set import limit_set
from lingpai.quotas.meter import Meter
from lingpai.quotas.under_way import CallUnderWay
from lingpai.wire.multipart import Form, write_form

if TYPE_CHECKING:
    from lingpai.catalog.interfaces import Model
    from lingpai.gateway.authenticate import Account
    from lingpai.gateway.gateway import Gateway
    from lingpai.gateway.queue import Place
    from lingpai.gateway.signed import SignedCall
    from lingpai.gateway.weigh import Weight
    from lingpai.lane.front import Front
    from lingpai.lane.upstream import Upstream
    from lingpai.quotas.limit_set import LimitSet
    from lingpai.quotas.refusal import Refusal
    from lingpai.wire.usage import Usage


log = logging.getLogger("lingpai.gateway")


@dataclass(slots=True, eq=False, repr=False, weakref_slot=True)
class Exchange:
    """The state of one call. The steps fill it in, in the order in which the fields stand here.

    Slots, because nearly all that a call reads and writes is here: defaults on the class would be slow to read, and
    with over 30 names an instance dictionary is slow to write. Together that was 8 % of a call.
    """

    gateway: "Gateway"
    front: "Front"
    endpoint: Endpoint
    model_in_path: str | None
    fields: dict[bytes, bytes]
    request_id: bytes = field(init=False)
    started: float = field(init=False)
    started_at: float = field(init=False)
    keep_alive: bool = field(init=False)
    cors: bytes = field(init=False)
    # authenticate
    principal: Principal | None = None
    account: "Account" = None  # type: ignore[assignment]  # set together with the principal
    generation: int = 0
    """Of the keys, when the credential was looked up."""
    is_key_settled: bool = False
    refusal: LingpaiError | None = None
    signed: "SignedCall | None" = None
    """What there is to know of the signature of a signed call."""
    # read
    is_body_complete: bool = False
    upload: bytes | bytearray = b""
    body: bytes = b""
    held: bodies.HeldBody | None = None
    request: Any = None
    # route
    model_name: str = ""
    model: "Model" = None  # type: ignore[assignment]  # set by route
    limits: "LimitSet | None" = None
    # admit
    weight: "Weight | None" = None
    reserved: Amounts = ONE
    used: Amounts = KEPT
    is_admitted: bool = False
    # queue
    request_path: bytes = b""
    request_body: bytes = b""
    place: "Place | None" = None
    queued_since: float = 0.0
    queued_ms: float = 0.0
    # relay
    sent_type: bytes = b""
    """The media type of a request to the backend that is not JSON."""
    upstream: "Upstream | None" = None
    retries: int = 0
    status: int = 0
    first_byte_at: float = 0.0
    stream: Stream | None = None
    extra_headers: bytes = b""
    retry_after: bytes | None = None
    answer: bytes | bytearray = b""
    held_answer: bodies.HeldBody | None = None
    answer_type: bytes = media.JSON
    usage: "Usage | None" = None
    is_counted: bool = False
    # settle
    is_leaving: bool = False
    """The caller has left, and the tokens used are still being counted."""
    is_over: bool = False
    final: bytes = b""

    def __post_init__(self) -> None:
        gateway, fields = self.gateway, self.fields
        self.started = gateway.loop.time()
        self.started_at = time.time()
        self.request_id = new_request_id(self.started_at)
        self.keep_alive = self.front.parser.should_keep_alive()
        self.cors = gateway.cross_origin.lines(fields[b"origin"]) if b"origin" in fields else b""

    # -- the story

    def proceed(self) -> None:
        """Take the steps, as soon as the body is complete and the key is known."""
        if not (self.is_body_complete and self.is_key_settled):
            if self.signed is not None and self.is_body_complete:
                self.signed.body_complete(self)
            return
        try:
            if self.refusal is not None:
                # Not raised: it would hold this frame, which holds it, and garbage of floods would pile up.
                settle.refuse(self, self.refusal)
                return
            keys = self.gateway.authenticator.keys
            if self.generation != keys.generation and not authenticate.is_still_valid(self):
                self._ask_again_who_calls()  # the key has changed while the body came
                return
            authenticate.check(self)
            read.read(self)
            route.route(self)
            if self.limits is None:
                self.gateway.call_limits.load(self, self.account.accesses[self.model.id])
                return  # `limits_loaded` goes on
            path, body = self.endpoint.prepare(self)
            fitting = admit.admit(self, path, body)
            if fitting is not None:
                relay.send(self, path, fitting)
        except LingpaiError as error:
            settle.refuse(self, error)
        except Exception as error:  # noqa: BLE001  an outermost edge: whatever went wrong, the caller gets an answer
            self.break_off(error)

    # -- what a step had to wait for

    def caller_known_late(self, principal: Principal | None) -> None:
        """The key was looked up when the call had ended already: refused unread, or the caller left."""
        if principal is not None and self.status:
            self.principal = principal
            settle.record_unread(self)

    def limits_loaded(self, limits: "LimitSet | None", refusal: LingpaiError | None) -> None:
        """The meters of the model are in memory, or cannot be brought there; neither: something changed meanwhile."""
        self._go_on(partial(self._with_limits, limits, refusal))

    def _with_limits(self, limits: "LimitSet | None", refusal: LingpaiError | None) -> None:
        if refusal is not None:
            settle.refuse(self, refusal)
            return
        self.limits = limits
        if limits is None or not self.may_still_enter():
            self.start_anew()
            return
        path, body = self.endpoint.prepare(self)
        fitting = admit.admit(self, path, body)
        if fitting is not None:
            relay.send(self, path, fitting)

    def may_still_enter(self) -> bool:
        """Whether all is as it was when the call began to wait: the key, its rights, the model and the limits."""
        gateway, account, caller = self.gateway, self.account, self.account.principal
        access = account.accesses.get(self.model.id)
        return (
            gateway.journal.healthy
            and authenticate.is_still_valid(self)
            and not (caller.expires_at is not None and time.time() >= caller.expires_at)
            and access is not None
            and access.limits is self.limits
            and account.catalog_version == gateway.catalog.version
            and account.limits_version == gateway.call_limits.book.version
            and self.model.backend.state == "ready"
        )

    def ask_limits_again(self) -> "Refusal | None":
        return admit.ask_again(self)

    def admitted(self) -> None:
        """The queue has brought the call past the limits."""
        self._go_on(self._send)

    def _send(self) -> None:
        relay.send(self, self.request_path, admit.fit(self, self.request_body))

    def turned_away(self, refusal: "Refusal") -> None:
        """The call has waited in vain."""
        self._go_on(partial(admit.refuse, self, refusal))

    def start_anew(self) -> None:
        """Something has changed while the call waited: take all steps again, from what the caller has sent."""
        form = getattr(self.request, "form", None)
        if form is None:
            self.upload = self.body
        else:  # what it was read from is gone, but nothing of what it says
            self.fields = dict(self.fields)
            self.fields[b"content-type"], self.upload = write_form(form.parts)
        self.request = None
        self.body = self.request_path = self.request_body = self.sent_type = self.extra_headers = b""
        self.weight = self.limits = None
        self._ask_again_who_calls()

    def _ask_again_who_calls(self) -> None:
        self.refusal = self.principal = None
        self.is_key_settled = False
        if self.signed is not None:
            self.signed.ask_again(self)
            return
        authenticate.begin(self)
        self.proceed()

    def _go_on(self, step: Callable[[], None]) -> None:
        if not self.is_over:
            self.carry_on(step)

    def carry_on(self, step: Callable[[], None]) -> None:
        """Take a step from outside the story; whatever goes wrong in it, whoever waits is answered."""
        try:
            step()
        except LingpaiError as error:
            settle.refuse(self, error)
        except Exception as error:  # noqa: BLE001  an outermost edge, like the one of `proceed`
            self.break_off(error)

    def break_off(self, error: BaseException | None) -> None:
        """A fault of ours: it is logged, the caller gets an answer, and the call its record."""
        request_id = self.request_id.decode()
        log.error("call %s failed", request_id, exc_info=error, extra={"request_id": request_id})
        relay.cancel(self)
        settle.break_off(self)

    def held_for(self, subject: Subject) -> CallUnderWay | None:
        """When the call was admitted and what it holds, if it counts against `subject` and is not recorded yet."""
        caller = self.principal
        if not self.is_admitted or caller is None or (self.is_over and not self.is_leaving):
            return None
        kind, id_ = subject
        own = {
            "key": caller.key_id,
            "client": caller.client_id,
            "user": caller.user_id,
            "project": caller.project_id,
            "model": self.model.id,
            "user_model": f"{caller.user_id} {self.model.id}",
        }
        return call_limits.under_way(self) if own[kind] == id_ else None

    def hold_to(self, meters: Sequence[Meter]) -> None:
        """These count the call, too, from now on: limits that were set while it was under way."""
        self.limits = limit_set((*self.limits.meters, *meters))  # type: ignore[union-attr]  # who is admitted has limits

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
        if len(self.upload) > self.gateway.bodies.small:
            self._check_upload(len(self.upload))

    def hold(self, size: int) -> LingpaiError | None:
        """Count a body of `size` bytes among those that are held; the refusal when there is no room for it."""
        before, self.held = self.held, None
        key = bodies.key_of(self) if before is None else before.key
        del before  # what is counted anew is not counted twice
        try:
            self.held = self.gateway.bodies.hold(key, size)
        except LingpaiError as error:
            return error.with_traceback(None)
        return None

    def hold_answer(self, size: int, most: int) -> LingpaiError | None:
        """Count `size` bytes of an answer that is still coming; the refusal when there is no room for more."""
        if self.held_answer is not None and size <= self.held_answer.size:
            return None
        self.held_answer = None  # what is counted anew is not counted twice
        try:
            self.held_answer = self.gateway.bodies.hold(bodies.key_of(self), min(2 * size, most))
        except LingpaiError as error:
            return error.with_traceback(None)
        return None

    def _check_upload(self, size: int) -> None:
        settings, refusal = self.gateway.settings, None
        if size > settings.max_body_bytes:
            refusal = read.too_large(settings)
        elif self.held is None or size > self.held.size:  # sent without a length
            refusal = self.hold(min(2 * size, settings.max_body_bytes))
        if refusal is not None:
            settle.refuse_unread(self, refusal)

    def let_go_of_body(self) -> None:
        """The request is on its way: keep only what the tokens may have to be counted in."""
        self.request_body = b""
        if self.model.task not in tally.TEXT_TASKS:
            self.body = b""
        if self.sent_type:
            self.request.form = Form(())

    def body_complete(self) -> None:
        self.is_body_complete = True
        if not self.is_over:
            self.proceed()

    def caller_left(self) -> None:
        if not self.is_over:
            self.carry_on(partial(settle.abandon, self))

    def pause(self) -> None:
        if self.upstream is not None:
            self.upstream.pause()

    def resume(self) -> None:
        if self.upstream is not None:
            self.upstream.resume()

    def stop(self) -> None:
        if not self.is_over:
            relay.cancel(self)
            self.carry_on(partial(settle.stop, self))

    # -- the backend's side

    response_started = relay.started
    response_data = relay.data
    response_quiet = relay.quiet
    response_finished = relay.finished
    response_failed = relay.failed
    response_broken = break_off

    # -- the journal's side

    recorded = settle.recorded
