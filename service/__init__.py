"""What every service has: settings from the environment, JSON logs, a status port."""
