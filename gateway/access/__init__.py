"""A request at the door: who sends it, whether it may, how much it may have, and when that ends."""
