"""Topics over HTTP: publish to them and subscribe. May use `log`, `web` and the settings."""
