"""Who may see what, by contract and by policy: agreements, measures for payers, reviews."""
