"""Measure the gateway beside other proxies on this machine: `python -m bench` prints Markdown tables without a verdict."""
