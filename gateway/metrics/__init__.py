"""Metrics: counted where they arise, and added up when they are scraped."""
