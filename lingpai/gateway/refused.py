"""Telling of model calls that met a rule of their key, so that they can be recorded. Others do not come here."""

from typing import TYPE_CHECKING, Final

from lingpai.errors import LingpaiError
from lingpai.storage.trail import UNKNOWN_CREDENTIAL, PolicyRefusal

if TYPE_CHECKING:
    from lingpai.gateway.exchange import Exchange


# The same for all of them: they are only counted, and they come in floods.
_UNKNOWN: Final = PolicyRefusal(caller=None, code=UNKNOWN_CREDENTIAL, target_kind="", target_id="")


def report(exchange: "Exchange", error: LingpaiError) -> None:
    """Tell of a call that is refused with one of `POLICY_CODES`."""
    if exchange.principal is None and error.code == UNKNOWN_CREDENTIAL:
        exchange.gateway.on_refusal(_UNKNOWN)
        return
    model = exchange.model_in_path or getattr(exchange.request, "model", None) or ""
    kind, target = ("model", model) if model else ("endpoint", exchange.endpoint.path)
    user_agent = exchange.fields.get(b"user-agent")
    exchange.gateway.on_refusal(
        PolicyRefusal(
            caller=exchange.principal,
            code=error.code,
            target_kind=kind,
            target_id=target[:300],
            address=exchange.front.caller_address or None,
            user_agent=None if user_agent is None else user_agent.decode("latin-1")[:200],
            request_id=exchange.request_id.decode(),
        )
    )
