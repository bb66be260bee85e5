"""One TLS client context for all outgoing connections: certificates are always verified."""

import functools
import ssl


@functools.cache
def client_context() -> ssl.SSLContext:
    """A verifying context with the system's certificate authorities, TLS 1.2 or newer."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


@functools.cache
def no_tls_context() -> ssl.SSLContext:
    """For origins that are asked without TLS: it trusts nobody, and saves the memory of all authorities (3 MB)."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
