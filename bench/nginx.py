"""nginx, as the upstream with a static answer and as the yardstick: a bare proxy with a key map and a rate limit."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.certificate import Certificate
from bench.payloads import CALL_ANSWER, MODELS_ANSWER
from bench.processes import Process, free_port, running, wait_for_answer
from bench.run import Run

_HEAD: Final = """\
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  keepalive_requests 100000000;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
"""

_UPSTREAM: Final = (
    _HEAD
    + """\
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location = /v1/models {{ default_type application/json; return 200 '{models}'; }}
    location / {{ default_type application/json; return 200 '{answer}'; }}
  }}
}}
"""
)

# `proxy_buffering off` is for the streams: Lingpai hands on each event when it comes, so nginx has to as well.
_PROXY: Final = (
    _HEAD
    + """\
  map_hash_bucket_size 256;
  map $http_authorization $is_known {{ default 0; "Bearer {key}" 1; }}
  limit_req_zone $http_authorization zone=keys:10m rate=1000000r/s;
  upstream backend {{ server 127.0.0.1:{upstream_port}; keepalive 512; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096{tls};
    location = /healthz {{ return 200 'ok'; }}
    location / {{
      if ($is_known = 0) {{ return 401; }}
      limit_req zone=keys burst=100000 nodelay;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_pass http://backend;
    }}
  }}
}}
"""
)


_TLS: Final = """ ssl;
    ssl_certificate {certificate.path};
    ssl_certificate_key {certificate.key_path};
    ssl_protocols TLSv1.3"""


@dataclass(frozen=True, slots=True)
class Listening:
    """A process and the port it listens on."""

    process: Process
    port: int


@contextmanager
def static_upstream(run: Run) -> Iterator[Listening]:
    """A backend that costs next to nothing: nginx with the same short answer to every call, on the load's processor."""
    port = free_port()
    folder = run.new_folder("upstream")
    text = _UPSTREAM.format(folder=folder, port=port, models=MODELS_ANSWER, answer=CALL_ANSWER)
    with _nginx(run, folder, text, cpu=run.cpus.load) as process:
        wait_for_answer(process, port, "/v1/models")
        yield Listening(process, port)


@contextmanager
def nginx_proxy(
    run: Run, upstream_port: int, *, key: str, certificate: Certificate | None = None
) -> Iterator[Listening]:
    """The yardstick in front of `upstream_port`, on the server's processor. It knows the one `key`.

    With a certificate it speaks TLS 1.3.
    """
    port = free_port()
    folder = run.new_folder("nginx")
    tls, context = "", None
    if certificate is not None:
        tls, context = _TLS.format(certificate=certificate), certificate.client_context()
    text = _PROXY.format(folder=folder, port=port, upstream_port=upstream_port, key=key, tls=tls)
    with _nginx(run, folder, text, cpu=run.cpus.server) as process:
        wait_for_answer(process, port, "/healthz", tls=context)
        yield Listening(process, port)


@contextmanager
def _nginx(run: Run, folder: Path, configuration: str, *, cpu: int) -> Iterator[Process]:
    path = folder / "nginx.conf"
    path.write_text(configuration, encoding="utf-8")
    with running(
        run.nginx, "-p", folder, "-c", path, cpu=cpu, log=folder / f"{folder.name}.log", folder=folder
    ) as process:
        yield process
