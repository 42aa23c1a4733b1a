-- An afternoon with psql, 4: what another clinic sees: its own, and that is nothing yet.
select count(*) from people;
select count(*) from tenant_north.people;
insert into people (mrn, name) values ('4711', 'Carl Moss') returning id, mrn;  -- each ward has its own unique keys
