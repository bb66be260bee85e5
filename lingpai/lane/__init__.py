"""HTTP/1.1 on sockets, fast. Knows bytes, connections and callbacks; knows nothing of models, keys or limits.

Five words: the *front* is one caller's connection; a *call* is what the product makes of one request on it; *calls*
decides which requests are calls and which go to the ASGI application; an *upstream* is one pooled connection to a
backend; a *receiver* is who gets the upstream's answer. Everything is callbacks on the event loop: no task, no future
and no ASGI scope per call, which is where the speed comes from (docs/decisions/0003-the-lane.md has the figures).
"""
