"""Calls and an application that note what they are told, and callers on real sockets."""

import asyncio

from lingpai.socket_paths import socket_address

CALL = b"/call"
LONG = b"x" * 2000


class Call:
    """A call that notes what it is told, and answers with its body unless it is told to wait."""

    def __init__(self, front, url, headers, fields):
        self.front, self.url, self.headers, self.fields = front, url, headers, fields
        self.body = b""
        self.told = []
        self.complete = asyncio.Event()
        self.left = asyncio.Event()

    def body_part(self, data):
        self.body += data

    def body_complete(self):
        self.told.append("complete")
        self.complete.set()
        if b"fault" in self.url:
            raise KeyError("a fault of ours")
        if b"wait" not in self.url:
            self.answer(b"call:" + self.body + LONG * (b"long" in self.url))

    def caller_left(self):
        self.told.append("left")
        self.left.set()

    def pause(self):
        self.told.append("pause")

    def resume(self):
        self.told.append("resume")

    def break_off(self, error):
        self.told.append(repr(error))
        self.front.write(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n")
        self.front.finish(keep_alive=True)

    def stop(self):
        self.told.append("stop")
        self.answer(b"stopped", keep_alive=False)

    def answer(self, body, *, keep_alive=True):
        self.front.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        self.front.finish(keep_alive=keep_alive)


class Calls:
    """Claims every POST below /call."""

    def __init__(self):
        self.opened = []
        self.refused = []

    def claims(self, url):
        return url.startswith(CALL)

    def open(self, front, url, headers, fields):
        if not url.startswith(CALL):
            return None
        if b"broken" in url:
            raise KeyError("a fault of ours")
        call = Call(front, url, headers, fields)
        self.opened.append(call)
        if b"refuse" in url:
            front.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 7\r\nconnection: close\r\n\r\nrefused")
            front.finish_and_linger()
        return call

    def malformed(self, status, message):
        self.refused.append((status, message))
        return b"HTTP/1.1 %d Bad\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbad" % status


class App:
    """The ASGI side: answers with method, path and body; `/slow` waits until the test lets it go."""

    def __init__(self):
        self.scopes = []
        self.go_on = asyncio.Event()
        self.reads_bodies = True

    async def __call__(self, scope, receive, send):
        self.scopes.append(scope)
        body, more = b"", self.reads_bodies
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if scope["path"] == "/slow":
            await self.go_on.wait()
        if scope["path"] == "/offence":
            scope["state"]["is_offence"] = True
        answer = f"asgi:{scope['method']} {scope['path']} ".encode() + body
        headers = [(b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


class Caller:
    """A caller on a socket."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def send(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self):
        """Status and body of the next answer, interim ones included."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ")[1])
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        return status, await self.reader.readexactly(length)

    async def rest(self):
        """Everything up to the end of the connection."""
        return await self.reader.read()

    def close(self):
        self.writer.close()


class Lane:
    """A running server."""

    def __init__(self, server, calls, app, port, admin_socket):
        self.server, self.calls, self.app, self.port, self.admin_socket = (
            server,
            calls,
            app,
            port,
            admin_socket,
        )
        self._callers = []

    async def caller(self, tls=None):
        options = {} if tls is None else {"ssl": tls, "server_hostname": "localhost"}
        caller = Caller(*await asyncio.open_connection("127.0.0.1", self.port, **options))
        self._callers.append(caller)
        return caller

    async def local_caller(self):
        caller = Caller(*await asyncio.open_unix_connection(socket_address(self.admin_socket)))
        self._callers.append(caller)
        return caller

    async def ask(self, data):
        """The first answer to some bytes on a connection of their own, and what follows it until the close."""
        caller = await self.caller()
        await caller.send(data)
        answer = await caller.answer()
        return *answer, await caller.rest()

    async def call(self, number=0):
        """A call once it has been opened."""
        while len(self.calls.opened) <= number:
            await asyncio.sleep(0.002)
        return self.calls.opened[number]

    def close_callers(self):
        for caller in self._callers:
            caller.writer.transport.abort()  # an orderly close would wait for a server that does not read


def post(path=b"/call", body=b"", *headers, host=b"host: h\r\n", version=b"1.1"):
    lines = b"".join(header + b"\r\n" for header in headers)
    return b"POST %b HTTP/%b\r\n%bcontent-length: %d\r\n%b\r\n%b" % (
        path,
        version,
        host,
        len(body),
        lines,
        body,
    )


def get(path=b"/asgi", *headers):
    return b"GET %b HTTP/1.1\r\nhost: h\r\n%b\r\n" % (path, b"".join(header + b"\r\n" for header in headers))


async def settled():
    await asyncio.sleep(0.03)
