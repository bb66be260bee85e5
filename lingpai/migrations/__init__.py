"""Alembic's environment and the revisions in ``versions/``: ``<4 digits>_<part>.py``, one chain, numbers ascending.

A revision names tables, columns and constraints itself and imports nothing of ours: it must do the same in two years.
It works while the previous release is still serving: add first, remove a release later.
"""
