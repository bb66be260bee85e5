"""The HTTP edge of the management API: who may call a route, how errors look, how lists are paged."""
