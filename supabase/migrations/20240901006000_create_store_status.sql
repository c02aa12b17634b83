-- What `aqf doctor` and `aqf db status` ask: versions, and how full each table is.

create or replace function public.store_version()
returns table (postgres text, pgvector text, schema_version text, n_trials bigint)
language sql stable security definer set search_path = '' as $$
  select current_setting('server_version'), (select e.extversion from pg_catalog.pg_extension e where e.extname = 'vector'),
    (select max(m.version) from supabase_migrations.schema_migrations m), (select count(*) from public.trials)
$$;

create or replace function public.store_status()
returns table (table_name text, n_rows bigint, size text)
language plpgsql stable security invoker set search_path = '' as $$
declare
  v_table record;
begin
  for v_table in
    select c.oid, c.relname from pg_catalog.pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' order by c.relname
  loop
    table_name := v_table.relname;
    size := pg_catalog.pg_size_pretty(pg_catalog.pg_total_relation_size(v_table.oid));
    execute pg_catalog.format('select count(*) from public.%I', v_table.relname) into n_rows;
    return next;
  end loop;
end
$$;

revoke execute on function public.store_version(), public.store_status() from public, anon, authenticated;
grant execute on function public.store_version(), public.store_status() to service_role;
