"""The process that `lingpai serve` becomes: `python -m lingpai.serving OPTIONS`.

The command line reads what was typed and then replaces itself by this, under the same process id. So what reads command
lines and draws tables, 8 MB, is not kept by a server that runs for months.
"""
