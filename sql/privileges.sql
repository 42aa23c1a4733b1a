-- The grant matrix, last, so that nothing made above is left out. Three kinds of function:
--   for tenants     granted to ward_tenant, below
--   gates           called by faces or by other functions as ward_owner
--   administration  superusers only

revoke all on schema ward, ward_internal, ward_model, ward_archive from public;
revoke execute on all functions in schema ward, ward_internal from public;
revoke all on all tables in schema ward, ward_internal from public;
revoke all on all sequences in schema ward, ward_internal from public;
alter default privileges for role ward_owner revoke execute on functions from public;

-- The gates run as ward_owner, not as the superuser who installed the extension. Before the grants, so that these are
-- recorded as the owner's.
alter function ward.login(text) owner to ward_owner;
alter function ward.login_session(text) owner to ward_owner;
alter function ward.renew_session() owner to ward_owner;
alter function ward.renew_keys() owner to ward_owner;
alter function ward.is_context_required() owner to ward_owner;
alter function ward.request_rotation(text) owner to ward_owner;
alter function ward.narrow_policy(text, text, text, boolean) owner to ward_owner;
alter function ward.restore_policy(text, text) owner to ward_owner;
alter function ward.break_glass(text, text[], integer, boolean) owner to ward_owner;
alter function ward.approve_break_glass(uuid) owner to ward_owner;
alter function ward.deny_break_glass(uuid) owner to ward_owner;
alter function ward.end_break_glass(uuid) owner to ward_owner;
alter function ward.review_break_glass(uuid, text) owner to ward_owner;
alter function ward.allow_break_glass(boolean) owner to ward_owner;
alter function ward.break_glass_requests() owner to ward_owner;
alter function ward.face_constraints() owner to ward_owner;
alter function ward.nextval(regclass) owner to ward_owner;
alter function ward.currval(regclass) owner to ward_owner;
alter function ward.lastval() owner to ward_owner;
alter function ward.setval(regclass, bigint, boolean) owner to ward_owner;
alter function ward.audit_entries(timestamptz, timestamptz, text, text[]) owner to ward_owner;
alter function ward.audit_acts(text, text, text, timestamptz, timestamptz, text) owner to ward_owner;
alter function ward.audit_coverage(text, timestamptz, timestamptz, text) owner to ward_owner;
alter function ward.audit_of_key(integer, timestamptz, timestamptz, text) owner to ward_owner;
alter function ward.audit_activity(timestamptz, timestamptz, text) owner to ward_owner;
alter function ward.audit_anomalies(timestamptz, timestamptz, numeric, text) owner to ward_owner;
alter function ward.audit_export(timestamptz, timestamptz, text) owner to ward_owner;
alter function ward.request_cache_ticket(bigint) owner to ward_owner;
alter function ward.begin_fill() owner to ward_owner;
alter function ward.end_fill(text) owner to ward_owner;
alter function ward.read_cached(text, text) owner to ward_owner;
alter function ward.delegate(text, text[]) owner to ward_owner;
alter function ward.revoke_delegation(text, text[]) owner to ward_owner;
alter function ward.publish_measures(daterange, text[]) owner to ward_owner;
alter function ward.read_measures() owner to ward_owner;

grant usage on schema ward to ward_tenant, ward_owner;
grant execute on function
  ward.login(text), ward.login_session(text), ward.renew_session(), ward.renew_keys(), ward.logout(),
  ward.tenant_id(), ward.subject(), ward.role(), ward.try_tenant_id(), ward.try_claims(), ward.try_logout(),
  ward.claim(text), ward.try_claim(text), ward.rule_claim(text, anyelement),
  ward.tenant_unless(text[]), ward.is_ruled(text[]),
  ward.require_context(uuid), ward.is_context_required(), ward.take_refusal(), ward.raise_refusal(anyelement),
  ward.raise_if_refused(anyelement), ward.raise_no_context(), ward.face_constraints(),
  ward.try_unseal(bytea, bytea, bytea), ward.try_unseal_text(bytea, bytea, bytea),
  ward.unseal(bytea, bytea, bytea), ward.unseal_bytes(bytea, bytea, bytea), ward.parse_array(text),
  ward.upsert(regclass, jsonb, text[], boolean), ward.request_rotation(text),
  ward.narrow_policy(text, text, text, boolean), ward.restore_policy(text, text),
  ward.nextval(regclass), ward.currval(regclass), ward.lastval(), ward.setval(regclass, bigint, boolean),
  ward.pg_get_serial_sequence(text, text)
to ward_tenant;

grant execute on function
  ward.break_glass(text, text[], integer, boolean), ward.approve_break_glass(uuid), ward.deny_break_glass(uuid),
  ward.end_break_glass(uuid), ward.review_break_glass(uuid, text), ward.allow_break_glass(boolean),
  ward.break_glass_requests()
to ward_tenant;
grant select on ward.break_glass_grants to ward_owner;
grant select, insert, update on ward_internal.break_glass to ward_owner;

-- what each login reads; the rest for faces, where the key of such a row changes
grant select, insert, update, delete on ward_internal.honey_rows to ward_owner;
grant execute on function ward_internal.follow_honey(uuid, uuid, bytea, bytea, text[]) to ward_owner;

grant usage on schema ward_internal, ward_archive to ward_owner;
grant execute on function
  ward_internal.ask_grant(text, uuid, text[], integer, text, boolean),
  ward_internal.report_grant(text, ward_internal.break_glass, jsonb),
  ward_internal.begin_grant(ward_internal.break_glass, jsonb, text), ward_internal.grant_of_tenant(uuid)
to ward_owner;
grant select on ward_internal.tenants, ward_internal.tenant_keys, ward_internal.issuers, ward_internal.settings
  to ward_owner;
grant select, insert on ward_internal.rotation_requests to ward_owner;
grant select on ward_internal.models, ward_internal.sealed_columns, ward_internal.classes, ward_internal.policy
  to ward_owner;
grant select on
  ward_internal.known_classes, ward_internal.column_classes, ward_internal.platform_policy, ward_internal.tenant_access
to ward_owner;
grant select, insert, update, delete on ward_internal.tenant_policy to ward_owner;
grant update (key_epoch) on ward_internal.tenants to ward_owner;  -- for ward.narrow_policy
grant select on ward.policy, ward.classes to ward_tenant;
grant select on ward_internal.searches, ward_internal.pending_searches to ward_owner;  -- what find functions read
grant execute on function
  ward_internal.make_tokens(bytea[], text), ward_internal.find_query(text, text[], text),
  ward_internal.is_found(text, text, text, text), ward_internal.check_searches(uuid, uuid[], text[]),
  ward_internal.is_overlapping(bigint[], bigint[]), ward_internal.is_containing(bigint[], bigint[])
to ward_owner;
grant execute on function
  ward_internal.mask_fits(text, oid),
  ward_internal.check_policy_cell(text, text, text, boolean), ward_internal.check_rewrite(bytea, bytea)
to ward_owner;
grant select, update on sequence ward_internal.audit_id to ward_owner;
grant execute on function
  ward.tenant_id(), ward.role(), ward.subject(), ward.try_tenant_id(), ward.try_claims(), ward.require_context(uuid),
  ward.claim(text), ward.try_claim(text), ward.rule_claim(text, anyelement),
  ward.tenant_unless(text[]), ward.is_ruled(text[]),
  ward.take_refusal(), ward.raise_refusal(anyelement), ward.raise_if_refused(anyelement),
  ward.raise_no_context(),
  ward.try_unseal(bytea, bytea, bytea), ward.parse_array(text),
  ward_internal.login(text), ward_internal.login_session(text), ward_internal.renew_session(),
  ward_internal.renew_keys(),
  ward_internal.look_up_now(),
  ward_internal.text_length(anyelement), ward_internal.digest(bytea),
  ward_internal.check_reason(text), ward_internal.fail(text, text, text), ward_internal.sqlstate(text),
  ward_internal.report_event(text, text), ward_internal.refuse(text, text),
  ward_internal.begin_write(text, text), ward_internal.check_counter(regclass), ward_internal.is_running(xid),
  ward_internal.seal(bytea[], bytea, bytea),
  ward_internal.canonical(timestamptz), ward_internal.canonical(interval),
  ward_internal.canonical(real), ward_internal.canonical(double precision)
to ward_owner;

grant execute on function
  ward_internal.begin_entry(text), ward_internal.lease_audit_ids(bigint),
  ward_internal.audit_leaf(uuid), ward_internal.make_audit_partition(uuid, timestamptz),
  ward_internal.log_event(uuid, text, jsonb)
to ward_owner;

grant execute on function
  ward.audit_entries(timestamptz, timestamptz, text, text[]),
  ward.audit_acts(text, text, text, timestamptz, timestamptz, text),
  ward.audit_of_key(integer, timestamptz, timestamptz, text), ward.audit_activity(timestamptz, timestamptz, text),
  ward.audit_coverage(text, timestamptz, timestamptz, text),
  ward.audit_anomalies(timestamptz, timestamptz, numeric, text), ward.audit_export(timestamptz, timestamptz, text)
to ward_tenant;
grant select on ward_internal.audit_batches, ward_internal.audit_checkpoints to ward_owner;  -- for ward.audit_export
grant execute on function
  ward_internal.is_operator(), ward_internal.audit_tenant(text), ward_internal.master_id(),
  ward_internal.audit_reader(text, text, timestamptz, timestamptz, text), ward_internal.rows_of(text, jsonb),
  ward_internal.names_row(jsonb, text),
  ward_internal.audit_entries(uuid, timestamptz, timestamptz, text[], uuid, text, text),
  ward_internal.audit_model(uuid, text), ward_internal.audit_row(uuid, uuid, text), ward_internal.audit_months(uuid),
  ward_internal.leaf_name(uuid, name), ward_internal.leaf_schema(name),
  ward_internal.audit_lines(uuid, text, text, timestamptz, timestamptz), ward_internal.json_text(jsonb)
to ward_owner;

-- Delegation: a tenant calls these; what they keep nobody reads or writes but through them.
grant execute on function
  ward.delegate(text, text[]), ward.revoke_delegation(text, text[]), ward.publish_measures(daterange, text[]),
  ward.read_measures()
to ward_tenant;
grant select on ward.measures, ward.measure_definitions, ward.delegated to ward_tenant;
grant select on ward_internal.measures, ward_internal.payers, ward_internal.measure_totals to ward_owner;
grant select, insert, update, delete on ward_internal.delegations, ward_internal.measure_cells to ward_owner;
grant select, insert on ward_internal.publications to ward_owner;
grant execute on function
  ward_internal.admin_of_context(text), ward_internal.report_to(uuid[], text, text),
  ward_internal.run_measure(text, name, daterange)
to ward_owner;

-- What clients cache.
grant execute on function ward.request_cache_ticket(bigint), ward.begin_fill(), ward.end_fill(text),
  ward.read_cached(text, text)
to ward_tenant;
grant select on ward_internal.cache_state, ward_internal.cache_policies, ward_internal.row_rules to ward_owner;
grant execute on function
  ward_internal.request_cache_ticket(bigint), ward_internal.begin_fill(), ward_internal.end_fill(text),
  ward_internal.read_cached(text, text)
to ward_owner;

-- for ward_internal.is_running, entries
grant execute on function pg_xact_status(xid8), pg_current_xact_id() to ward_owner;
grant execute on function pg_advisory_xact_lock(bigint) to ward_owner;  -- for ward_internal.lease_audit_ids
grant set on parameter temp_file_limit to ward_owner;  -- for the questions to the log
grant select on pg_replication_slots to ward_owner;  -- login looks whether the journal's is there
grant execute on function pg_get_replication_slots() to ward_owner;

-- The scribe: entries and seals are added, never changed; what it has to change is its own position and what is not
-- signed yet.
grant usage on schema ward_internal to ward_scribe, ward_publisher;
grant select on ward_internal.tenants to ward_scribe, ward_publisher;
grant select on ward_internal.settings to ward_scribe;  -- where its keeper is
grant select, insert on ward_internal.audit_log, ward_internal.audit_batches, ward_internal.audit_checkpoints
  to ward_scribe;
grant select, insert, update on
  ward_internal.audit_trees, ward_internal.scribe_state, ward_internal.counts
to ward_scribe;
grant select, insert, update, delete on ward_internal.audit_unsigned to ward_scribe;
grant select, update on sequence ward_internal.audit_id to ward_scribe;
grant execute on function
  ward_internal.lease_audit_ids(bigint), ward_internal.make_audit_partition(uuid, timestamptz),
  ward_internal.master_id(),
  ward_internal.make_audit_partitions(), ward_internal.make_publications(), ward_internal.set_audit_slot(name),
  ward_internal.open_transactions(), ward_internal.json_text(jsonb)
to ward_scribe;
grant execute on function pg_advisory_xact_lock(bigint) to ward_scribe;
grant select on pg_replication_slots, pg_stat_replication to ward_scribe;
grant execute on function pg_get_replication_slots(), pg_stat_get_wal_senders(), pg_stat_get_activity(integer)
  to ward_scribe;
grant execute on function
  pg_current_wal_lsn(), pg_current_wal_insert_lsn(), pg_current_wal_flush_lsn(), pg_control_system()
to ward_scribe;

-- The publisher: reads what is sealed.
grant select on
  ward_internal.audit_log, ward_internal.audit_batches, ward_internal.audit_trees, ward_internal.audit_checkpoints
to ward_publisher;
grant select, insert, update on ward_internal.audit_topics to ward_publisher;
grant execute on function ward_internal.json_text(jsonb), ward_internal.report_unpublished(uuid, jsonb)
  to ward_publisher;
grant execute on function pg_try_advisory_lock(bigint) to ward_publisher;

-- The invalidator: which tenants there are, and the WAL, of which it decodes whose tables were written.
grant usage on schema ward_internal to ward_invalidator;
grant select on ward_internal.tenants to ward_invalidator;
grant execute on function ward_internal.begin_invalidation(uuid, bytea) to ward_invalidator;
grant select on pg_replication_slots to ward_invalidator;
grant execute on function
  pg_get_replication_slots(), pg_current_wal_flush_lsn(), pg_current_snapshot(), pg_control_system(),
  pg_try_advisory_lock(bigint)
to ward_invalidator;

-- The metrics service: counts, sizes and dates. Of a key it reads when it was made, of a person nothing.
grant usage on schema ward_internal to ward_metrics;
grant select on
  ward_internal.settings, ward_internal.counts, ward_internal.metrics_tokens, ward_internal.backups,
  ward_internal.scribe_state, ward_internal.audit_topics
to ward_metrics;
grant select (id, slug, status, key_mode) on ward_internal.tenants to ward_metrics;
grant select (tenant_id, state, kek, kek_version, created_at, wrapped_at) on ward_internal.tenant_keys to ward_metrics;
grant select (tenant_id, started_at, finished_at, rows) on ward_internal.rotations to ward_metrics;
grant select (tenant_id, size) on ward_internal.audit_trees, ward_internal.audit_checkpoints to ward_metrics;
grant select (tenant_id, first_position, at) on ward_internal.audit_batches to ward_metrics;
grant select (tenant_id, begins, ends, ended_on) on ward_internal.baas to ward_metrics;
grant select (tenant_id, emergency, started_at, reviewed_at) on ward_internal.break_glass to ward_metrics;
grant select on pg_replication_slots to ward_metrics;
grant execute on function pg_get_replication_slots(), pg_current_wal_lsn() to ward_metrics;

do $$
begin
  if not exists (select from pg_catalog.pg_event_trigger where evtname = 'ward_follow_models') then
    create event trigger ward_follow_models on ddl_command_end when tag in ('ALTER TABLE', 'ALTER INDEX', 'ALTER VIEW',
        'CREATE INDEX', 'CREATE POLICY', 'CREATE RULE', 'CREATE TABLE', 'CREATE FOREIGN TABLE', 'CREATE TRIGGER',
        'DROP COLLATION', 'DROP DOMAIN', 'DROP EXTENSION', 'DROP OWNED', 'DROP SCHEMA', 'DROP TYPE')
      execute function ward_internal.on_change();
    alter event trigger ward_follow_models enable always;
  end if;
  if not exists (select from pg_catalog.pg_event_trigger where evtname = 'ward_save_dependents') then
    create event trigger ward_save_dependents on ddl_command_start when tag in ('ALTER TABLE', 'DROP COLLATION',
        'DROP DOMAIN', 'DROP EXTENSION', 'DROP OWNED', 'DROP SCHEMA', 'DROP TYPE')
      execute function ward_internal.on_change_begin();
    alter event trigger ward_save_dependents enable always;
  end if;
  if not exists (select from pg_catalog.pg_event_trigger where evtname = 'ward_follow_names') then
    create event trigger ward_follow_names on ddl_command_end when tag in ('ALTER COLLATION', 'ALTER DOMAIN',
        'ALTER EXTENSION', 'ALTER FUNCTION', 'ALTER OPERATOR', 'ALTER ROUTINE', 'ALTER SCHEMA', 'ALTER TYPE')
      execute function ward_internal.on_name_change();
    alter event trigger ward_follow_names enable always;
  end if;
  if not exists (select from pg_catalog.pg_event_trigger where evtname = 'ward_bound_lock_waits') then
    create event trigger ward_bound_lock_waits on ddl_command_start when tag in ('ALTER TABLE', 'ALTER INDEX',
      'ALTER POLICY', 'ALTER TRIGGER', 'ALTER VIEW', 'CREATE INDEX', 'CREATE POLICY', 'CREATE TABLE', 'CREATE TRIGGER',
      'CREATE VIEW', 'DROP INDEX', 'DROP POLICY', 'DROP SCHEMA', 'DROP TABLE', 'DROP TRIGGER', 'DROP VIEW')
      execute function ward_internal.bound_lock_waits();
    alter event trigger ward_bound_lock_waits enable always;
  end if;
  if not exists (select from pg_catalog.pg_event_trigger where evtname = 'ward_forget_models') then
    create event trigger ward_forget_models on sql_drop execute function ward_internal.on_drop();
    alter event trigger ward_forget_models enable always;
  end if;
  if not exists (select from pg_catalog.pg_event_trigger where evtname = 'ward_follow_grants') then
    create event trigger ward_follow_grants on ddl_command_end
      when tag in ('GRANT', 'REVOKE', 'ALTER DEFAULT PRIVILEGES')
      execute function ward_internal.on_grant();
    alter event trigger ward_follow_grants enable always;
  end if;
  if not exists (select from pg_catalog.pg_event_trigger where evtname = 'ward_refuse_grants') then
    create event trigger ward_refuse_grants on ddl_command_start
      when tag in ('GRANT', 'REVOKE', 'ALTER DEFAULT PRIVILEGES')
      execute function ward_internal.refuse_grant();
    alter event trigger ward_refuse_grants enable always;
  end if;
end
$$;

select ward_internal.harden();
