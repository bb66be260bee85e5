"""``/api/v1/secrets``, on the admin socket."""

from typing import Annotated

from fastapi import APIRouter, Path, Request

from lingpai.principal import Principal
from lingpai.secrets.interfaces import Kind
from lingpai.secrets.schemas import RotateSecret, SecretVersions, SecretVersionView
from lingpai.secrets.service import Secrets, check_is_local
from lingpai.web.auth import require
from lingpai.web.errors import ERROR_RESPONSES

KindInPath = Annotated[Kind, Path(description="Which of the server's secrets.")]


def secret_routes(secrets: Secrets) -> APIRouter:
    """The routes of the server's secrets."""
    router = APIRouter(prefix="/api/v1/secrets", tags=["secrets"], responses=ERROR_RESPONSES)

    @router.get("")
    def list_secrets(
        request: Request,
        caller: Annotated[Principal, require("secrets:read")],  # noqa: ARG001  it says who may
    ) -> SecretVersions:
        """List the versions of the server's secrets and what needs them; on its own machine only."""
        _check(request)
        return SecretVersions(data=[SecretVersionView.of(version) for version in secrets.all()])

    @router.post("/{kind}/rotate", status_code=201)
    def rotate_secret(
        kind: KindInPath,
        body: RotateSecret,
        request: Request,
        caller: Annotated[Principal, require("secrets:write")],
    ) -> SecretVersions:
        """Make a new version and use it from now on; what older ones have made goes on. On its own machine only."""
        _check(request)
        made = secrets.rotate(caller, kind, leaked=body.leaked)
        return SecretVersions(data=[SecretVersionView.of(version) for version in made])

    @router.delete("/{kind}/{version}", status_code=204)
    def retire_secret(
        kind: KindInPath,
        version: Annotated[str, Path(description="The version, as the list has it.")],
        request: Request,
        caller: Annotated[Principal, require("secrets:write")],
    ) -> None:
        """Take a version away for good; refused while anything needs it. On its own machine only."""
        _check(request)
        secrets.retire(caller, kind, version)

    return router


def _check(request: Request) -> None:
    check_is_local(is_local=bool(getattr(request.state, "is_local", False)))
