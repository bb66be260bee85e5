"""What stands at the seams of the gateway in its tests: the front, the lane to the backend, the journal, the limits."""

import json
from types import SimpleNamespace

from lingpai.catalog.interfaces import Model
from lingpai.principal import Principal

SCOPES = frozenset({"model:inference"})


class FakeFront:
    """A caller's connection that notes what is written to it."""

    def __init__(self, *, version="1.1", is_local=False, caller_address="192.0.2.7", keep_alive=True):
        self.sent = b""
        self.memo = None
        self.call = None
        self.ended = []
        self.is_local = is_local
        self.caller_address, self.certificate_names = caller_address, ()
        self.transport = self
        self.parser = SimpleNamespace(should_keep_alive=lambda: keep_alive)
        self._version = version

    def write(self, data):
        self.sent += data

    def slow_down(self):
        self.told_to_slow_down = True

    def finish(self, *, keep_alive):
        self.call = None
        self.ended.append("keep" if keep_alive else "close")

    def finish_and_linger(self):
        self.call = None
        self.ended.append("linger")

    def is_http_1_0(self):
        return self._version == "1.0"

    @property
    def head(self) -> dict[str, str]:
        """The headers of the answer, and its status line under ``status``."""
        line, *lines = self.sent.partition(b"\r\n\r\n")[0].decode().split("\r\n")
        pairs = [text.split(": ", 1) for text in lines]
        assert len({name for name, _ in pairs}) == len(pairs), "a header was sent twice"
        return {"status": line.split(" ", 1)[1], **dict(pairs)}

    @property
    def body(self) -> bytes:
        return self.sent.partition(b"\r\n\r\n")[2]

    @property
    def chunks(self) -> bytes:
        """The body of a chunked answer that has ended; fails when it has not."""
        rest, whole = self.body, b""
        while True:
            size, _, rest = rest.partition(b"\r\n")
            if int(size, 16) == 0:
                assert rest == b"\r\n"
                return whole
            whole, rest = whole + rest[: int(size, 16)], rest[int(size, 16) + 2 :]


class FakeUpstream:
    """The lane's connection: notes whether it was aborted or paused."""

    def __init__(self):
        self.told = []

    def abort(self):
        self.told.append("abort")

    def pause(self):
        self.told.append("pause")

    def resume(self):
        self.told.append("resume")


class FakeLink:
    """The connections to one backend: keeps what was sent."""

    def __init__(self):
        self.sent = []
        self.upstream = FakeUpstream()
        self.pool = SimpleNamespace(sweep=lambda: None)

    def send(self, path, body, receiver, request_id):
        receiver.upstream = self.upstream
        self.sent.append((path, body))

    def send_typed(self, path, body, receiver, request_id, *, media_type):
        self.send(path, body, receiver, request_id)
        self.media_type = media_type


class FakeJournal:
    """A journal that writes at once, cannot write, or waits until it is told."""

    def __init__(self):
        self.healthy = True
        self.can_write = True
        self.waits = False
        self.records = []
        self.waiting = []

    def append(self, record, then):
        self.records.append(record)
        if self.waits:
            self.waiting.append(then)
        else:
            then(self.can_write)

    @property
    def record(self):
        (record,) = self.records
        return record


class FakeMeter:
    """A limit of requests that always has room."""

    unit, index = "requests", 0

    def room(self, now):
        return True

    def take(self, now):
        pass


class FakeLimiter:
    """Counts what is taken and given back; refuses when told."""

    def __init__(self):
        self.taken = []
        self.given_back = []
        self.refusal = None

    def admit(self, limits, now):
        if self.refusal is None:
            self.taken.append((limits.meters, now))
        return self.refusal

    def give_back(self, limits, admitted_at, reserved):
        self.given_back.append((limits.meters, admitted_at))

    @property
    def held(self) -> int:
        """Requests that are charged."""
        return len(self.taken) - len(self.given_back)


class FakeBook:
    """The limits of models: none, unless the test gives some."""

    def __init__(self):
        self.version = 0
        self.entries = ()

    def for_call(self, user_id, model_id, *, user_name=""):
        return self.entries


class FakeCounter:
    """Counts a token per character, in no thread; None when it is told to fail."""

    fails = False

    async def count(self, tokenizer, *texts):
        return None if self.fails else [sum(map(len, read())) for read in texts]


class FakeJobs:
    """Starts tasks on a loop that does not run yet: tests call from outside of it."""

    def __init__(self, loop):
        self._loop = loop

    def start(self, name, work):
        return self._loop.create_task(work, name=name)


class FakeBackend:
    """A backend of the catalog."""

    def __init__(self, name="gpu-1", *, kind="openai", state="ready"):
        self.name, self.kind, self.state = name, kind, state
        self.host, self.port, self.is_tls, self.socket_path = "127.0.0.1", 8000, False, None
        self.path_prefix, self.headers, self.retry_after = "/v1", {}, 2.4
        self.replicas, self.is_replicated = (), False


class FakeKeys:
    """A keyring whose look-ups the test watches: they block in worker threads as the real ones do."""

    def __init__(self, principals=None):
        self.generation = 0
        self.principals = principals or {}
        self.looked_up = []
        self.known = {}
        self.garbage = set()
        self.on_load = lambda: None

    def find(self, token):
        return self.known.get(token)

    def is_known_garbage(self, token):
        return token in self.garbage

    def load(self, token):
        self.looked_up.append(token)
        self.on_load()
        return self.principals.get(token)

    def remember(self, token, principal):
        if principal is None:
            self.garbage.add(token)
        else:
            self.known[token] = principal

    def revoke(self, token):
        """As when a key is deleted: it leaves the memory, and nobody knows it any more."""
        self.generation += 1
        del self.known[token]
        self.garbage.add(token)


def principal(**fields) -> Principal:
    """A key that may call models."""
    return Principal(**{
        "user_id": "usr_1", "user_name": "ada", "role": "member", "key_id": "k1", "key_name": "laptop",
        "scopes": SCOPES, **fields,
    })  # fmt: skip


def model(id_="acme/chat", task="chat", *, backend=None, **fields) -> Model:
    """A model that its backend calls by its id."""
    return Model(
        **{"id": id_, "task": task, "backend": backend or FakeBackend(), "upstream_name": id_, **fields}
    )


GOOD = {"id": "x", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}
STREAM_HEAD = {b"content-type": b"text/event-stream; charset=utf-8", b"transfer-encoding": b"chunked"}
STREAM = {"model": "acme/chat", "messages": [{}], "stream": True}


def chunk(text="a", **fields) -> bytes:
    choices = [{"index": 0, "delta": {"content": text}}]
    return b"data: " + json.dumps({"choices": choices, **fields}).encode() + b"\n\n"


def usage_chunk() -> bytes:
    return b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n'


def stream(served, front, **options):
    """A streamed call whose head and first event have come."""
    call = served.call(body=STREAM, front=front, **options)
    call.response_started(200, STREAM_HEAD)
    call.response_data(chunk())
    return call
