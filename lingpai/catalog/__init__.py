"""Which models there are, what they are called, and which backend answers for them."""
