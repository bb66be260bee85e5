"""Background work in the server process: every task has a name and an owner."""
