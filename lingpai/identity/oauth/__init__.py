"""The authorization server: clients, the token endpoint with one file per grant, revocation, introspection, metadata."""
