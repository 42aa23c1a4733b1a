-- An afternoon with psql, 3: what an analyst sees of it: years, parts of ZIP codes and values, but no names and notes.
\set SHOW_CONTEXT never
select mrn, birth_date, zip from people order by mrn;
select started_on, round(avg(systolic)) from visits group by started_on;
select name from people;
insert into visits (person_id, started_on, reason) values (1, '2026-03-03', 'cough');
