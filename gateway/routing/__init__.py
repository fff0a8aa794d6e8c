"""Which upstream serves a path, and how that is read, checked and changed while the gateway runs."""
