"""The database backend of the alias that migrates: PostgreSQL's, as a superuser."""
