"""What commands and daemons share: files written whole, processes, sessions with pinned settings."""
