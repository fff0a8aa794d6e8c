"""The data of the dashboard: snapshots, services, and the tail of one stream."""
