"""What the gateway shows of itself: snapshots, what has happened lately, and the tail of one stream."""
