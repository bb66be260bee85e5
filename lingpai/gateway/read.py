"""Step 2: what is asked? The few fields of the body that the gateway needs."""

from typing import TYPE_CHECKING

from lingpai.errors import LingpaiError
from lingpai.gateway.settings import GatewaySettings
from lingpai.wire.body import check_text, read_body

if TYPE_CHECKING:
    from lingpai.gateway.exchange import Exchange


def read(exchange: "Exchange") -> None:
    """Fill `exchange.body` and `exchange.request`. Raises LingpaiError for anything but a good JSON object."""
    content_type = exchange.fields.get(b"content-type")
    if content_type is not None and b"json" not in content_type.lower():
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
    check_text(body)
    exchange.request = read_body(body, exchange.endpoint.decoder)
    exchange.request.check()


def too_large(settings: GatewaySettings) -> LingpaiError:
    """What a caller hears whose body is over the limit."""
    most = settings.max_body_bytes
    return LingpaiError(
        "request_too_large", f"The body is over {most} bytes (`gateway.max_body_bytes`). Send less."
    )
