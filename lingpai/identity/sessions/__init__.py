"""People signing in: passwords, sessions for browsers, invitations, and the defence against guessing."""
