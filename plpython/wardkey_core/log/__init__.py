"""The audit log as bytes: entries, trees, checkpoints, exports. No clock, no keys.

Only source and exporter ask a database, through a protocol.

=============  ==================================================================================
canonical      the one way to write a JSON value
entry          one entry, its canonical bytes and its leaf hash
merkle         the tree over a tenant's entries (RFC 6962), its pieces and proofs
checkpoint     what is signed: a tree's size and root, in a chain
exportfile     the file that ``wardkey audit export`` writes
source         the database's tables: rows as entries, in the order they were sealed
exporter       from there to a file
=============  ==================================================================================

``tests/vectors`` has vectors and a checker that shares no code with this package.
"""
