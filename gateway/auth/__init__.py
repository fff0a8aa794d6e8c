"""Who may listen and publish: credentials, tokens, keys, what they grant, and the end of streams whose credential ends."""
