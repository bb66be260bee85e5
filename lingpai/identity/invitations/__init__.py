"""Invitations: how somebody gets their first password, or a new one, without anybody else ever knowing it."""
