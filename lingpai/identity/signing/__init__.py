"""Signed requests: HTTP message signatures (RFC 9421) and the digest of the body (RFC 9530)."""
