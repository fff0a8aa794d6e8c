"""One text, streamed piece by piece. May use `web` and the settings."""
