"""What keeper, scribe and publisher have in common as processes, and commands with them.

``service`` runs one in the foreground: options, ``privileges``, signals, exit code; ``status`` and
``appending`` are its files. ``files`` are written whole, ``sessions`` have pinned settings. ``processes``
finds and ends processes, ``supervision`` and ``supervisor`` keep those of an embedded server running,
``units`` are systemd's for a server of one's own.
"""
