"""Search over sealed columns."""
