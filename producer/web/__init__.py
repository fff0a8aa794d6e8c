"""What every HTTP answer of the producer needs: server, middlewares, problems, metrics, drain. Uses none of the other packages."""
