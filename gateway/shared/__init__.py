"""Mode shared: one upstream connection for all that ask for the same."""
