"""Stands before the package of this name, which the images have not: structlog would import it wherever it is installed."""

raise ImportError("no service needs it")
