"""One history, many cursors: what the modes shared and resumable send their subscribers from."""
