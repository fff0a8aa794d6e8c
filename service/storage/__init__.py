"""Durable SQLite files: format, lock, transactions, space on the device, and readers. Independent of what is stored."""
