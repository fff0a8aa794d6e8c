"""Who asks, and how much each client may have."""
