"""Passwords: which ones are accepted, how they are kept and checked, and the defence against guessing."""
