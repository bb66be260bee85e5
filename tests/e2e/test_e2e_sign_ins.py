"""Programs that have signed in: seen with where they came from, and ended with all of their tokens."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from lingpai.identity.interfaces import User
from lingpai.identity.oauth.errors import OAuthError
from lingpai.settings import ModelSettings, ServerSettings, Settings
from tests.e2e.client_tokens import FORM
from tests.e2e.raw_http import RawAnswer, RawConnection, chat, exchange, get, get_bytes, post, post_bytes
from tests.in_process import InProcessServer
from tests.secrets_scan import SCAN

PASSWORD = "correct horse battery staple"


class OnePassword:
    """Everybody's."""

    def __init__(self, server: InProcessServer) -> None:
        self._server = server

    async def verify(self, name: str, password: str, *, address: str) -> User:
        if password != PASSWORD:
            raise OAuthError("invalid_grant", "Wrong.")
        application = self._server.application
        return await asyncio.to_thread(application.domains.users.get, application.local_administrator, name)


class Scene:
    """A server with alice, and what she does."""

    def __init__(self, server: InProcessServer) -> None:
        self.server = server

    def token(self, **form: str) -> RawAnswer:
        request = post_bytes(
            "/oauth/token", urlencode(form).encode(), content_type=FORM, headers=("user-agent: notebook/1.0",)
        )
        answer = exchange(self.server.port, request)
        SCAN.secrets.add_credentials(answer.body)
        return answer

    def sign_in(self, **form: str) -> Any:
        answer = self.token(grant_type="password", username="alice", password=PASSWORD, **form)
        assert answer.status == 200, answer.body
        return answer.json

    def refresh(self, refresh_token: str) -> RawAnswer:
        return self.token(grant_type="refresh_token", refresh_token=refresh_token)

    def call(self, token: str) -> int:
        return post(self.server.port, "/v1/chat/completions", chat(model="lingpai/eliza"), key=token).status

    def listed(self, token: str, query: str = "") -> Any:
        return get(self.server.port, f"/api/v1/tokens{query}", key=token).json["data"]

    def revoke(self, token: str, id_: str) -> int:
        with RawConnection(self.server.port) as connection:
            connection.send(get_bytes(f"/api/v1/tokens/{id_}", key=token, method="DELETE"))
            return connection.read_head()[0]


def play(folder: Path, scene: Any) -> None:
    """Run `scene` in a thread against a server in this process, in which alice has a password."""

    async def scenario() -> None:
        server = InProcessServer(folder, Settings(server=ServerSettings(port=0)), [DEMONSTRATION_MODELS])
        SCAN.secrets.add("password", PASSWORD)
        try:
            await server.start()
            authorization = server.application.domains.authorization
            authorization.parts = replace(authorization.parts, passwords=OnePassword(server))
            await server.make_user("alice", ["none"])
            await asyncio.to_thread(scene, Scene(server))
        finally:
            await server.stop()

    asyncio.run(asyncio.wait_for(scenario(), 60))


DEMONSTRATION_MODELS = ModelSettings(target="lingpai.demo")
ALL = "model:inference tokens:read tokens:write"


def test_sign_in_is_seen_refreshed_and_ended(tmp_path: Path) -> None:
    """Ended: neither its access tokens nor its refresh token do anything any more, from the next request on."""

    def scene(scene: Scene) -> None:
        watching = scene.sign_in(scope=ALL)["access_token"]
        notebook = scene.sign_in(scope="model:inference")
        assert scene.call(notebook["access_token"]) == 200
        [_, before] = sorted(scene.listed(watching), key=lambda token: "tokens:read" not in token["scopes"])
        refreshed = scene.refresh(notebook["refresh_token"]).json
        [after] = [token for token in scene.listed(watching) if token["id"] == before["id"]]

        assert (before["kind"], before["user"], before["client"]) == ("family", "alice", None)
        assert (before["address"], before["user_agent"]) == ("127.0.0.1", "notebook/1.0")
        assert (before["scopes"], before["refreshed_at"]) == (["model:inference"], None)
        assert after["refreshed_at"] is not None
        assert scene.call(refreshed["access_token"]) == 200

        assert scene.revoke(watching, before["id"]) == 204

        assert scene.call(notebook["access_token"]) == scene.call(refreshed["access_token"]) == 401
        late = scene.refresh(refreshed["refresh_token"])
        assert (late.status, late.json["error"]) == (400, "invalid_grant")
        assert before["id"] not in {token["id"] for token in scene.listed(watching)}
        assert scene.revoke(watching, before["id"]) == 404

    play(tmp_path, scene)


def test_reused_refresh_token_takes_its_sign_in_off_the_list(tmp_path: Path) -> None:
    """RFC 9700 section 4.14: nobody can tell the thief from the owner."""

    def scene(scene: Scene) -> None:
        watching = scene.sign_in(scope=ALL)["access_token"]
        stolen = scene.sign_in()["refresh_token"]
        newest = scene.refresh(stolen).json
        assert len(scene.listed(watching)) == 2

        assert scene.refresh(stolen).json["error"] == "invalid_grant"

        assert len(scene.listed(watching)) == 1
        assert scene.call(newest["access_token"]) == 401
        assert scene.refresh(newest["refresh_token"]).status == 400

    play(tmp_path, scene)
