"""Common parts of all services: settings from the environment, JSON logs, a status port."""
