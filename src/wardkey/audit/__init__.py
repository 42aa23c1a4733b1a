"""The audit log as bytes: entries, trees, checkpoints, exports, proofs. Pure: no database, no clock, no keys.

=============  ==================================================================================
canonical      the one way to write a JSON value
entry          one entry, its canonical bytes and its leaf hash
source         the database's tables: rows as entries, in the order they were sealed
exporter       from there to a file
merkle         the tree over a tenant's entries (RFC 6962), its pieces and proofs
checkpoint     what is signed: a tree's size and root, in a chain
exportfile     the file that ``wardkey audit export`` writes
verify         reads such a file and trusts nobody
remembered     what the keeper has signed last, compared with it
prove          one entry and the proof that it is in the log
=============  ==================================================================================

``tests/vectors`` has vectors and a checker that shares no code with this package.
"""
