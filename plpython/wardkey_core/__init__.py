"""What database, keeper, scribe, client and verifier share: errors, tokens, envelope, wire, log formats.

Standard library and ``cryptography`` only; nothing of ours is imported from here.
"""
