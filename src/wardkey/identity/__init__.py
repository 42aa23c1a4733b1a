"""Who issues tokens: issuer documents, JWKS, and where both are registered."""
