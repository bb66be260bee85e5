import asyncio

from lingpai.backends.engines.replies import EventStream, Reply, event
from lingpai.errors import LingpaiError


class Connection:
    """What the server would send."""

    def __init__(self):
        self.messages = []

    async def send(self, message):
        self.messages.append(message)

    @property
    def body(self):
        return b"".join(message.get("body", b"") for message in self.messages)


def test_a_silent_stream_is_kept_alive_by_comments():
    connection = Connection()

    async def quiet():
        async with EventStream(Reply(connection.send), silence=0.01) as stream:
            await asyncio.sleep(0.1)
            await stream.end(event(b"1"))

    asyncio.run(quiet())

    assert connection.messages[0]["status"] == 200
    assert connection.body.startswith(b": ping\n\n: ping\n\n")
    assert connection.body.endswith(b"data: 1\n\n")


def test_a_stream_that_speaks_carries_no_comments():
    connection = Connection()

    async def busy():
        async with EventStream(Reply(connection.send), silence=60) as stream:
            await stream.send(event(b"1"))
            await stream.end(event(b"2"))

    asyncio.run(busy())

    assert connection.body == b"data: 1\n\ndata: 2\n\n"


def test_nothing_is_sent_after_the_end():
    connection = Connection()

    async def ended():
        async with EventStream(Reply(connection.send), silence=0.01) as stream:
            await stream.end(b"")
            await asyncio.sleep(0.03)
        await asyncio.sleep(0.03)

    asyncio.run(ended())

    assert connection.body == b""


def test_an_error_before_the_first_event_keeps_its_status():
    connection = Connection()
    reply = Reply(connection.send)

    asyncio.run(reply.error(LingpaiError("model_loading", "Wait.", headers={"retry-after": "1"})))

    assert connection.messages[0]["status"] == 503
    assert (b"retry-after", b"1") in connection.messages[0]["headers"]


def test_an_error_whose_message_is_no_text_still_goes_out():
    connection = Connection()

    asyncio.run(Reply(connection.send).error(LingpaiError("invalid_request", "bad \ud800")))

    assert b"bad \\\\ud800" in connection.body
