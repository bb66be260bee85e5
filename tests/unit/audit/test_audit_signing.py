"""Signatures: by the newest key, verified by any that is known, over every byte and for one purpose."""
