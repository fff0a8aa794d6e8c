"""Identify clients, and limit what each may use."""
