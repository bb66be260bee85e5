"""Storage: the database and its migrations. Tables belong to the domains; each registers its own in `metadata`."""
