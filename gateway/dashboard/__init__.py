"""Data of the operators' dashboard: snapshots, recent incidents, and the tail of one stream."""
