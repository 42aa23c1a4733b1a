-- An afternoon with psql, 2: what a clinic does. Faces are written and read as tables.
insert into people (mrn, name, birth_date, zip) values
  ('4711', 'Ada Grey', '1991-06-24', '02287'), ('4712', 'Bob Stone', '1950-02-28', '02111') returning id, name;
insert into visits (person_id, started_on, reason, systolic)
  select id, '2026-03-02', 'chest pain', 141 from people where mrn = '4711';
update people set zip = '02288' where mrn = '4711';

select p.mrn, p.name, v.started_on, v.reason, v.systolic from people as p join visits as v on v.person_id = p.id;

-- instead of insert … on conflict (mrn) do update
select ward.upsert('people', '[{"mrn": "4712", "name": "Robert Stone"}]', key => '{mrn}');

-- A CHECK holds for the plaintext; the error names the face, and no value.
\set SHOW_CONTEXT never
insert into people (mrn, name, birth_date) values ('4713', 'Eve Hill', '1815-12-10');
