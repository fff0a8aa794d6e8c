"""Put the rest together: the application, the proxy, reloads, workers, and the admin port."""
