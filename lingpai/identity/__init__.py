"""Who may call: users, their API keys, and the keyring that recognises a key on the hot path."""
