-- Announces changes of the tables that Realtime publishes to listeners of Postgres itself, so that a feed over NOTIFY and one over
-- Realtime tell of the same tables. Ids only, one message a statement; keys of free length (trace_id) must not push a message over the
-- 8,000 bytes at which the insert itself would fail, so that a message too long says how many rows there are and leaves the ids out.
-- Nor may a listener that hangs: once the queue is full every commit that announces something fails, so that nothing is announced while
-- it is half full, and feeds then ask the tables.

create or replace function public.notify_ids() returns trigger
language plpgsql set search_path = '' as $$
declare
  v_count integer;
  v_ids text[];
  v_message text;
begin
  if pg_catalog.pg_notification_queue_usage() >= 0.5 then
    return null;
  end if;
  execute pg_catalog.format('select count(*), (array_agg(%I::text))[1:100] from changed', tg_argv[0]) into v_count, v_ids;
  if v_count > 0 then
    v_message := pg_catalog.jsonb_build_object('count', v_count,
      'ids', case when v_count <= 100 then pg_catalog.to_jsonb(v_ids) end)::text;
    if pg_catalog.octet_length(v_message) >= 8000 then
      v_message := pg_catalog.jsonb_build_object('count', v_count, 'ids', null)::text;
    end if;
    perform pg_catalog.pg_notify(tg_table_name, v_message);
  end if;
  return null;
end
$$;
revoke execute on function public.notify_ids() from public, anon, authenticated;
grant execute on function public.notify_ids() to service_role, researcher;

-- A point of the equity can be corrected; without the time of that, a feed that was away could not find it.
alter table public.equity_snapshots add column if not exists updated_at timestamptz not null default now();
drop trigger if exists set_updated_at on public.equity_snapshots;
create trigger set_updated_at before update on public.equity_snapshots for each row execute function public.set_updated_at();

do $$
declare
  v_table text;
  v_key text;
  v_event text;
begin
  for v_table, v_key in
    values ('trades', 'trade_id'), ('decision_traces', 'trace_id'), ('portfolio_state', 'singleton'), ('agent_health', 'health_id'),
      ('equity_snapshots', 'snapshot_id'), ('backtest_results', 'backtest_id'), ('research_runs', 'run_id')
  loop
    foreach v_event in array array['insert', 'update'] loop
      execute pg_catalog.format('drop trigger if exists %I on public.%I', v_table || '_notify_' || v_event, v_table);
      execute pg_catalog.format(
        'create trigger %I after %s on public.%I referencing new table as changed for each statement execute function public.notify_ids(%L)',
        v_table || '_notify_' || v_event, v_event, v_table, v_key);
    end loop;
  end loop;
end
$$;
