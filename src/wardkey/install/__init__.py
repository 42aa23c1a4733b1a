"""What a PostgreSQL server needs for wardkey: software, Python packages, the extension, migrations."""
