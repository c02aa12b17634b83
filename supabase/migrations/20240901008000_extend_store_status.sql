-- What `aqf db status` asks beyond row counts: which indexes are there and sound, and which statements are slow.

create or replace function public.store_indexes()
returns table (index_name text, table_name text, size text, n_scans bigint, is_valid boolean)
language sql stable security invoker set search_path = '' as $$
  select i.relname::text, t.relname::text, pg_catalog.pg_size_pretty(pg_catalog.pg_relation_size(i.oid)), coalesce(s.idx_scan, 0),
    x.indisvalid and x.indisready
  from pg_catalog.pg_index x
  join pg_catalog.pg_class i on i.oid = x.indexrelid
  join pg_catalog.pg_class t on t.oid = x.indrelid
  left join pg_catalog.pg_stat_all_indexes s on s.indexrelid = x.indexrelid
  where t.relnamespace = 'public'::regnamespace
  order by pg_catalog.pg_relation_size(i.oid) desc, i.relname
$$;

-- The statements that took most time, where the server has pg_stat_statements; no rows elsewhere. As its owner, because a role sees
-- only its own statements.
create or replace function public.store_slow_statements(p_limit integer default 10)
returns table (statement text, calls bigint, mean_ms float8, total_ms float8)
language plpgsql stable security definer set search_path = '' as $$
declare
  v_schema text;
begin
  select n.nspname into v_schema from pg_catalog.pg_extension e join pg_catalog.pg_namespace n on n.oid = e.extnamespace
  where e.extname = 'pg_stat_statements';
  if v_schema is null then
    return;
  end if;
  return query execute pg_catalog.format(
    'select left(regexp_replace(s.query, ''\s+'', '' '', ''g''), 200), s.calls, s.mean_exec_time, s.total_exec_time
     from %I.pg_stat_statements s join pg_catalog.pg_database d on d.oid = s.dbid and d.datname = pg_catalog.current_database()
     order by s.total_exec_time desc limit $1', v_schema) using p_limit;
end
$$;

create or replace function public.store_summary() returns table (database_size text, migrations text[])
language sql stable security definer set search_path = '' as $$
  select pg_catalog.pg_size_pretty(pg_catalog.pg_database_size(pg_catalog.current_database())),
    array(select m.version from supabase_migrations.schema_migrations m order by m.version)
$$;

revoke execute on function public.store_indexes(), public.store_slow_statements(integer), public.store_summary() from public, anon, authenticated;
grant execute on function public.store_indexes(), public.store_slow_statements(integer), public.store_summary() to service_role;
