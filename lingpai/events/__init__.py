"""What happened that somebody should know of: kept as events, listed, and sent to webhooks."""
