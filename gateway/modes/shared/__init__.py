"""Mode shared: one upstream connection for all clients that request the same."""
