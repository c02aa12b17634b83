-- What Pythia learns from: hit rates by context, materialised, with a refresh that no trade ever waits for or fails by.
-- Decision 0008 says why the refresh is not in a trigger on trades.

-- The figures as they are this moment; the materialised view below is a copy of it.
create or replace view public.trade_hit_rates_live with (security_invoker = true) as
  select t.context_key, t.category, t.regime, t.vix_band,
    count(*) as total_trades,
    count(*) filter (where t.hit is not null) as closed_trades,
    avg(case when t.hit then 1.0 else 0.0 end) filter (where t.hit is not null) as hit_rate,
    avg(t.pnl_pct) filter (where t.pnl_pct is not null) as avg_pnl_pct,
    avg(coalesce(t.net_pnl_pct, t.pnl_pct)) filter (where t.hit) as avg_win_pct,
    avg(coalesce(t.net_pnl_pct, t.pnl_pct)) filter (where not t.hit) as avg_loss_pct,
    avg(coalesce(t.net_pnl_pct, t.pnl_pct)) filter (where t.hit)
      / nullif(-avg(coalesce(t.net_pnl_pct, t.pnl_pct)) filter (where not t.hit), 0) as payoff_ratio
  from public.trades t
  where not t.voided
  group by t.context_key, t.category, t.regime, t.vix_band;

create materialized view if not exists public.trade_hit_rates as select l.* from public.trade_hit_rates_live l;
create unique index if not exists trade_hit_rates_context_key on public.trade_hit_rates (context_key);
comment on materialized view public.trade_hit_rates is
  'Copy of trade_hit_rates_live; get_trade_hit_rates() answers from it where it is up to date. Averages of wins and losses are net of cost, losses negative.';

-- Contexts whose row in the copy is out of date. Rows are only added and, by the refresh, removed: writers never meet on one.
create table if not exists public.trade_hit_rate_changes (
  change_id uuid primary key default gen_random_uuid(),
  context_key text not null,
  created_at timestamptz not null default now()
);

create or replace function public.mark_hit_rate_changes() returns trigger
language plpgsql set search_path = '' as $$
begin
  if tg_op = 'TRUNCATE' then
    insert into public.trade_hit_rate_changes (context_key) select r.context_key from public.trade_hit_rates r;
    return null;
  end if;
  if tg_op <> 'INSERT' then
    insert into public.trade_hit_rate_changes (context_key) values (old.context_key);
  end if;
  if tg_op = 'INSERT' or (tg_op = 'UPDATE' and new.context_key is distinct from old.context_key) then
    insert into public.trade_hit_rate_changes (context_key) values (new.context_key);
  end if;
  return null;
end
$$;
drop trigger if exists mark_hit_rate_changes on public.trades;
create trigger mark_hit_rate_changes after insert or delete or update of context_key, hit, pnl_pct, net_pnl_pct, voided on public.trades
  for each row execute function public.mark_hit_rate_changes();
drop trigger if exists mark_all_hit_rates_changed on public.trades;
create trigger mark_all_hit_rates_changed after truncate on public.trades
  for each statement execute function public.mark_hit_rate_changes();

-- Brings the copy up to date, in a transaction of its own after that of the trade. True: call again, for more may have come meanwhile;
-- false: nothing is left to do, or somebody else is at it and will look again. Who calls it until it is false loses nothing.
create or replace function public.refresh_trade_hit_rates() returns boolean
language plpgsql security definer set search_path = '' set lock_timeout = '5s' as $$
begin
  if not exists (select from public.trade_hit_rate_changes)
     or not pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtext('public.trade_hit_rates')) then
    return false;
  end if;
  -- Read committed: the refresh sees at least every trade whose mark is removed here.
  delete from public.trade_hit_rate_changes;
  refresh materialized view concurrently public.trade_hit_rates;
  return true;
end
$$;

-- The rates as they are now: the copy, but for contexts that changed since, which are counted afresh.
create or replace function public.get_trade_hit_rates(p_context_key text default null) returns setof public.trade_hit_rates
language sql stable security invoker set search_path = '' as $$
  select r.* from public.trade_hit_rates r
  where (p_context_key is null or r.context_key = p_context_key)
    and not exists (select from public.trade_hit_rate_changes c where c.context_key = r.context_key)
  union all
  select l.* from public.trade_hit_rates_live l
  where (p_context_key is null or l.context_key = p_context_key)
    and l.context_key = any (array(select c.context_key from public.trade_hit_rate_changes c))
$$;

alter table public.trade_hit_rate_changes enable row level security;
revoke all on public.trade_hit_rates, public.trade_hit_rates_live, public.trade_hit_rate_changes from public, anon, authenticated;
grant select on public.trade_hit_rates, public.trade_hit_rates_live to service_role;
grant all on public.trade_hit_rate_changes to service_role;
revoke execute on function public.mark_hit_rate_changes(), public.refresh_trade_hit_rates(), public.get_trade_hit_rates(text) from public, anon, authenticated;
grant execute on function public.refresh_trade_hit_rates(), public.get_trade_hit_rates(text) to service_role;

-- Where pg_cron is there, trades that come past our own writers (the REST interface, psql) reach the copy within a minute.
do $$
begin
  if to_regprocedure('cron.schedule(text, text, text)') is not null then
    perform cron.schedule('refresh-trade-hit-rates', '* * * * *', 'select public.refresh_trade_hit_rates()');
  end if;
end
$$;
