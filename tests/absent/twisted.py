"""Hides the package of this name, which the images do not have: structlog would import it wherever it is installed."""

raise ImportError("no service needs it")
