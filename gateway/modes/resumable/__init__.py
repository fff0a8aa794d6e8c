"""Mode resumable: answers that outlive their clients, and the store that keeps them."""
