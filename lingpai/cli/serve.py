"""`lingpai serve`: reads the command line, then becomes the server (`lingpai.serving`)."""

from pathlib import Path
from typing import Annotated, Literal, NoReturn

from cyclopts import Parameter

from lingpai.serving.options import ServeOptions


def serve(
    *targets: Annotated[
        str, Parameter(help="app.py | app.py:name | package.module:name | http://host:port/v1 | ollama")
    ],
    config: Annotated[
        Path | None, Parameter(help="Settings file (else ./lingpai.toml, if there is one).")
    ] = None,
    data: Annotated[
        Path | None, Parameter(help="Data directory (else LINGPAI_DATA, else ./lingpai-data).")
    ] = None,
    host: Annotated[str | None, Parameter(help="Address to listen on (else 127.0.0.1).")] = None,
    port: Annotated[int | None, Parameter(help="Port to listen on (else 8741; 0: a free one).")] = None,
    tls_cert: Annotated[
        Path | None, Parameter(help="Certificate with its chain, a PEM file: speak TLS.")
    ] = None,
    tls_key: Annotated[Path | None, Parameter(help="The certificate's private key, a PEM file.")] = None,
    insecure: Annotated[
        bool, Parameter(negative=(), help="Listen in clear text where others can read along.")
    ] = False,
    reload: Annotated[
        bool,
        Parameter(
            negative=(), help="Load the targets' Python files anew when they change (for development)."
        ),
    ] = False,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None, Parameter(help="How much is logged.")
    ] = None,
    log_format: Annotated[
        Literal["text", "json"] | None, Parameter(help="Log lines for people or programs.")
    ] = None,
) -> NoReturn:
    """Serve models behind API keys, limits and usage.

    TARGET is a Python file or object, the address of an OpenAI-compatible server, or `ollama`; several may be given.
    Without any, three demonstration models are served.
    """
    flags = {
        "host": host,
        "port": port,
        "tls_cert": None if tls_cert is None else str(tls_cert),
        "tls_key": None if tls_key is None else str(tls_key),
        "insecure": insecure or None,
        "log_level": log_level,
        "log_format": log_format,
    }
    options = ServeOptions(
        targets=targets,
        config=None if config is None else str(config),
        data=None if data is None else str(data),
        reload=reload,
        server={name: value for name, value in flags.items() if value is not None},
    )
    options.become_server()
