"""The audit log, exported, verified, proven and asked. Its byte formats are in ``wardkey_core.log``.

=============  ==================================================================================
source         the log as a client of the database reads it
verify         reads such a file and trusts nobody
remembered     what the keeper has signed last, compared with it
prove          one entry and the proof that it is in the log
=============  ==================================================================================
"""
