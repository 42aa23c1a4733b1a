-- Array operators that are leakproof: PostgreSQL's own are not, and so no index is used for them under row-level
-- security. They are given tokens only, and never raise an error about one.
create or replace function ward_internal.is_overlapping(bigint[], bigint[]) returns boolean
language internal immutable strict parallel safe leakproof security invoker as $$arrayoverlap$$;
create or replace function ward_internal.is_containing(bigint[], bigint[]) returns boolean
language internal immutable strict parallel safe leakproof security invoker as $$arraycontains$$;

do $$
begin
  if to_regoperator('ward_internal.&&(bigint[], bigint[])') is null then
    create operator ward_internal.&& (
      leftarg = bigint[], rightarg = bigint[], function = ward_internal.is_overlapping,
      commutator = operator(ward_internal.&&), restrict = pg_catalog.contsel, join = pg_catalog.contjoinsel);
    create operator ward_internal.@> (
      leftarg = bigint[], rightarg = bigint[], function = ward_internal.is_containing,
      restrict = pg_catalog.contsel, join = pg_catalog.contjoinsel);
    create operator class ward_internal.token_ops for type bigint[] using gin as
      operator 1 ward_internal.&& (bigint[], bigint[]),
      operator 2 ward_internal.@> (bigint[], bigint[]),
      function 1 pg_catalog.btint8cmp(bigint, bigint),
      function 2 pg_catalog.ginarrayextract(anyarray, internal, internal),
      function 3 pg_catalog.ginqueryarrayextract(anyarray, internal, smallint, internal, internal, internal, internal),
      function 4 pg_catalog.ginarrayconsistent(
        internal, smallint, anyarray, integer, internal, internal, internal, internal),
      function 6 pg_catalog.ginarraytriconsistent(internal, smallint, anyarray, integer, internal, internal, internal),
      storage bigint;
  end if;
end
$$;
