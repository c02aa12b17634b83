-- What leaves the database: changes for Supabase Realtime, buckets for files, and the eight tables that a dashboard may read without a
-- login. Each part applies only where its service is there; the rest of the schema does not need it.

do $$
declare
  v_table text;
  v_all boolean;
begin
  if not exists (select from pg_catalog.pg_publication where pubname = 'supabase_realtime') then
    if not pg_catalog.has_database_privilege(current_database(), 'create') then
      return;
    end if;
    create publication supabase_realtime;
  end if;
  select p.puballtables into v_all from pg_catalog.pg_publication p
  where p.pubname = 'supabase_realtime' and pg_catalog.pg_has_role(p.pubowner, 'usage');
  if v_all is not false then
    return;
  end if;
  foreach v_table in array array['trades', 'decision_traces', 'portfolio_state', 'agent_health', 'equity_snapshots', 'signal_embeddings',
    'backtest_results', 'research_runs'] loop
    if not exists (select from pg_catalog.pg_publication_tables t
                   where t.pubname = 'supabase_realtime' and t.schemaname = 'public' and t.tablename = v_table) then
      execute pg_catalog.format('alter publication supabase_realtime add table public.%I', v_table);
    end if;
  end loop;
end
$$;

do $$
begin
  if to_regclass('storage.buckets') is not null then
    insert into storage.buckets (id, name, public)
    values ('model-artifacts', 'model-artifacts', false), ('feature-snapshots', 'feature-snapshots', false)
    on conflict (id) do update set public = false;
  end if;
end
$$;

do $$
declare
  v_table text;
begin
  foreach v_table in array array['trades', 'decision_traces', 'portfolio_state', 'portfolio_positions', 'agent_health', 'macro_context', 'signals',
    'ticker_map'] loop
    execute pg_catalog.format('grant select on public.%I to anon', v_table);
    execute pg_catalog.format('drop policy if exists anon_reads on public.%I', v_table);
    execute pg_catalog.format('create policy anon_reads on public.%I for select to anon using (true)', v_table);
  end loop;
end
$$;

-- Takes the dashboard's reading without a login away again, grants and policies both, and returns the tables it closed. Running this
-- file again gives it back.
create or replace function public.close_anon_access() returns setof text
language plpgsql security definer set search_path = '' as $$
declare
  v_table text;
begin
  for v_table in
    select p.tablename from pg_catalog.pg_policies p where p.schemaname = 'public' and p.policyname = 'anon_reads' order by p.tablename
  loop
    execute pg_catalog.format('revoke select on public.%I from anon', v_table);
    execute pg_catalog.format('drop policy anon_reads on public.%I', v_table);
    return next v_table;
  end loop;
end
$$;
revoke execute on function public.close_anon_access() from public, anon, authenticated;
grant execute on function public.close_anon_access() to service_role;
