"""Usage: what each call used, from the journal to the report.

The way of a record::

    gateway --append--> Journal --(segment files)--> ingester process --> usage_records, usage_rollups --> UsageReport

- `journal` (with `framing`, `segments`, `syncing`) runs in the server and is the only writer of segment files.
- `ingester` (with `reader`, `loader`) is a child process that moves records into the database, each exactly once;
  `supervisor` keeps it running and knows how far it has come.
- `store`, `service` and `routes` answer questions from the database.

This file stays empty of imports: the ingester loads `msgspec` and the standard library, nothing else.
"""
