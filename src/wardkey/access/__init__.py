"""Who may see what, by contract and by policy: business associate agreements, measures for payers."""
