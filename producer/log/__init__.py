"""The durable event log: its interface, and the embedded implementation. Independent of HTTP."""
