"""Step 2: what is asked? The few fields of the body that the gateway needs."""

from typing import TYPE_CHECKING, Any

from lingpai.errors import LingpaiError
from lingpai.gateway import forms
from lingpai.gateway.settings import FEW_MESSAGES, GatewaySettings
from lingpai.gateway.weigh import check_parameters
from lingpai.wire.body import check_text, read_body
from lingpai.wire.inference import GenerateRequest, InferenceRequest, read_fields
from lingpai.wire.multipart import is_form
from lingpai.wire.openai import ChatRequest, CompletionRequest, check_choices, clear_body

if TYPE_CHECKING:
    from lingpai.gateway.exchange import Exchange


def read(exchange: "Exchange") -> None:
    """Fill `exchange.body` and `exchange.request`. Raises LingpaiError for anything but a good JSON object, or a good
    form where the endpoint reads forms.
    """
    content_type = exchange.fields.get(b"content-type", b"")
    is_other = content_type != b"application/json" and _is_no_json(content_type)
    if is_other and not (exchange.endpoint.read_form and is_form(content_type)):
        raise LingpaiError(
            "unsupported_media_type",
            f"The body must be JSON, but Content-Type says `{content_type[:80].decode('latin-1')}`. "
            "Send `Content-Type: application/json`.",
        )
    if b"content-encoding" in exchange.fields:
        raise LingpaiError(
            "unsupported_media_type", "Compressed bodies are not accepted. Leave Content-Encoding out."
        )
    body = exchange.body = bytes(exchange.upload)  # no copy when it came in one piece
    exchange.upload = b""
    if is_other:
        forms.read(exchange, body, content_type)
    else:
        check_text(body)
        exchange.request = read_body(body, exchange.endpoint.decoder)
        exchange.body = clear_body(body)
    request: Any = exchange.request
    request.check()
    # The usual call is seen at a glance.
    if (
        type(request) is not ChatRequest
        or request.n is not None
        or len(request.messages or ()) > FEW_MESSAGES
    ):
        _check_sizes(exchange)


def _is_no_json(content_type: bytes) -> bool:
    return bool(content_type) and b"json" not in content_type.lower()


def _check_sizes(exchange: "Exchange") -> None:
    """Bound what multiplies the work of one call: answers, their lengths, messages."""
    request, settings = exchange.request, exchange.gateway.settings
    if isinstance(request, ChatRequest):
        check_choices({"n": request.n}, settings.max_choices)
        if len(request.messages or ()) > settings.max_messages:
            raise LingpaiError(
                "invalid_request",
                f"`messages` has over {settings.max_messages} entries (`gateway.max_messages`). Send fewer.",
                param="messages",
            )
    elif isinstance(request, CompletionRequest):
        check_choices({"n": request.n, "best_of": request.best_of}, settings.max_choices)
    elif isinstance(request, InferenceRequest):
        check_parameters(request.parameters or {}, settings.max_choices)
    elif isinstance(request, GenerateRequest):
        check_parameters(read_fields(exchange.body), settings.max_choices)


def too_large(settings: GatewaySettings) -> LingpaiError:
    """What a caller hears whose body is over the limit."""
    most = settings.max_body_bytes
    return LingpaiError(
        "request_too_large", f"The body is over {most} bytes (`gateway.max_body_bytes`). Send less."
    )
