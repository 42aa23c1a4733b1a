-- Once, as a superuser: a schema for model tables; a role, with a schema of its own, for Django's tables.
create schema care;
create role practice login;
create schema practice authorization practice;
select format('grant connect on database %I to practice', current_database()) \gexec
