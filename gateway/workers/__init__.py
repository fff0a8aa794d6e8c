"""Several processes on one port, and the parent that looks after them."""
