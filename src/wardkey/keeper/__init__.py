"""The keeper: the one process that talks to the KMS and releases DEKs, each only to a token of its tenant.

``python -m wardkey.keeper --help`` says how to run it. ``protocol`` is what it speaks, ``service`` what it
decides, ``server`` the socket, ``trust`` whose tokens it believes, ``cache`` the keys it holds.
"""
