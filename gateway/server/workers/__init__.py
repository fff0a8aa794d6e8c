"""Several worker processes on one port, and the parent that supervises them."""
