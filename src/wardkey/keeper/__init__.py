"""The keeper: the one process that talks to the KMS and releases DEKs, each only to a token of its tenant.

``python -m wardkey.keeper --help`` says how to run it. ``protocol`` is what it speaks and ``requests``
what it can be asked, ``server`` the socket, ``service`` who gets an answer, ``trust`` whose tokens it
believes. ``keys`` makes, unwraps and rewraps, ``cache`` holds them, ``reseal`` uses them, ``providers``
are the KMSs. ``administration`` ends keys, ``ledger`` remembers that, ``signing`` vouches for it; ``grants``
are those of break-glass.
"""
