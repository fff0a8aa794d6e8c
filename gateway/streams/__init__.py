"""What happens to events: relay, history, fan-out, subscribers, stamping. Nothing here knows HTTP, routes or metrics."""
