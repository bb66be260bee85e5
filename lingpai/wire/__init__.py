"""Shapes on the wire and pure conversions between them: bytes in, bytes out, no I/O."""
