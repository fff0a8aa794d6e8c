"""Values and rules: routes, settings, CORS, authentication tables, grants, trusted proxies. Nothing here does I/O but reading files."""
