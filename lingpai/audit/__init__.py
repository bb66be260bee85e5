"""Who did what to what, from where: a chain of records in which every change shows."""
