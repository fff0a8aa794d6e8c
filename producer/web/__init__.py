"""Common parts of the producer's HTTP answers: server, middlewares, problems, metrics, drain. Uses none of the other packages."""
