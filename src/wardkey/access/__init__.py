"""Who may see what, by contract and by policy: business associate agreements."""
