"""How fast is it, next to nginx in the same run? `python -m bench`, or `make bench`; README.md says how to read it.

One module per row group of the table in the design (`calls`, `stream`, `latency`, `start`, `open_streams`, `keys`):
each has a `measure(run)` that starts what it needs, measures, stops everything and returns a `GroupResult`.
"""
