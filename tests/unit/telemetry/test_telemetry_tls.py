"""Outgoing TLS always verifies."""

import ssl

from lingpai.telemetry.tls import client_context


def test_certificates_and_names_are_verified():
    context = client_context()

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_context_is_made_once():
    """Loading the certificate authorities takes longer than a call."""
    assert client_context() is client_context()
