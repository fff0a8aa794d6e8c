"""Mode resumable: answers that outlive their clients, and the store that they are kept in."""
