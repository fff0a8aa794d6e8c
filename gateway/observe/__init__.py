"""What operators see: metrics, latency, and the dashboard's data."""
