"""Measures the gateway beside other proxies on this machine: `python -m bench` prints Markdown tables and judges nothing."""
