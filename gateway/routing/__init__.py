"""Map paths to upstreams: read, check and reload routes."""
