"""The durable event log: what it takes, what it returns, and the embedded one. Knows nothing of HTTP."""
