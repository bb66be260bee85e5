"""Limits: how they are written, counted, refused and shown."""
