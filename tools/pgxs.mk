# What PGXS needs to know, run from the top directory; PGXS looks for files beside this one.
EXTENSION = ../sql/wardkey
DATA = $(addprefix ../,$(wildcard sql/dist/*.sql))
PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)
