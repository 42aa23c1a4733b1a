# What PGXS needs to know; `make install` in the directory above includes it where PGXS is installed.
EXTENSION = sql/wardkey
DATA = $(wildcard sql/dist/*.sql)
PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)
