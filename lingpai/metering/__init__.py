"""Usage: what each call used, from the journal to the report.

The way of a record::

    gateway --append--> Journal --(segment files)--> ingester process --> usage_records --> lists and exports of calls
                                                                     +--> usage_rollups --> reports, history of limits

- `journal` (with `framing`, `segments`, `syncing`) runs in the server and is the only writer of segment files.
- `ingester` (with `reader`, `loader`) is a child process that moves records into the database, each exactly once;
  `supervisor` keeps it running and knows how far it has come.
- `store`, `service` and `routes` answer questions from the sums, `requests` and `request_routes` from single records;
  `parameters`, `visibility`, `presenting` and `export` are what both share.
- `retention` deletes old records, `rebuild` repairs the sums, `lag` and `journal_routes` tell how it all goes.

This file stays empty of imports: the ingester loads `msgspec` and the standard library, nothing else.
"""
