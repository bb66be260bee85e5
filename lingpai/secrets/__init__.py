"""The server's long-lived secrets: which versions there are, what needs them, how they are replaced and taken away."""
