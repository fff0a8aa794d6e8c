"""How requests are answered: directly, from a shared stream, or from an answer that is kept."""
