-- Equity is counted in units, as funds do. Exists because money that is paid in or out is neither gain nor loss: it buys or sells units at
-- what one is worth at that moment, so that a deposit lifts no peak and a withdrawal is no drawdown. An account begins with one unit.

alter table public.portfolio_state add column if not exists units numeric not null default 1;
alter table public.portfolio_state add column if not exists moved numeric;
alter table public.equity_snapshots add column if not exists units numeric not null default 1;
alter table public.equity_snapshots add column if not exists unit_value numeric not null generated always as (equity / units) stored;
comment on column public.portfolio_state.moved is 'Money from outside, opening balance included, that the units account for; null while nobody said.';
comment on column public.equity_snapshots.unit_value is 'What one unit was worth: its course is the account''s without deposits and withdrawals.';

do $$
begin
  alter table public.portfolio_state drop constraint if exists portfolio_state_units_fit;
  alter table public.portfolio_state add constraint portfolio_state_units_fit check (units > 0 and units < 'infinity');
  alter table public.portfolio_state drop constraint if exists portfolio_state_moved_fits;
  alter table public.portfolio_state add constraint portfolio_state_moved_fits check (moved > '-infinity' and moved < 'infinity');
  alter table public.equity_snapshots drop constraint if exists equity_snapshots_units_fit;
  alter table public.equity_snapshots add constraint equity_snapshots_units_fit check (units > 0 and units < 'infinity');
end
$$;

-- What an account recorded so far stays as it was: its past deposits count as they did, those from now on as money paid in. Where nobody
-- said what came from outside it stays null: an opening balance that is told later was in the equity all along.
update public.portfolio_state s set moved = (select sum(m.amount) from public.cash_movements m) where s.moved is null;

-- Replaces the book and appends its equity to the history, in one transaction. The peak is the highest worth of a unit times the units there
-- are. `moved` is all money from outside that the equity contains: what it grew by since the last time was paid in at the equity without it.
-- Where nothing was left to pay it into, it counts as a gain.
create or replace function public.record_portfolio(payload jsonb) returns setof public.portfolio_state
language plpgsql security invoker set search_path = '' as $$
declare
  v_equity numeric := (payload ->> 'equity')::numeric;
  v_moved numeric := (payload ->> 'moved')::numeric;
  v_positions jsonb := coalesce(payload -> 'positions', '[]');
  v_before public.portfolio_state;
  v_paid_in numeric;
  v_growth numeric := 1;
  v_units numeric;
  v_peak numeric;
  v_drawdown float8;
begin
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('public.portfolio_state'));
  select s.* into v_before from public.portfolio_state s;
  v_paid_in := coalesce(v_moved - v_before.moved, 0);
  if v_paid_in < 0 and v_equity <= 0 then
    -- All was paid out, and nothing has no drawdown: what comes back later is counted against what there was.
    return query select s.* from public.portfolio_state s;
    return;
  end if;
  if v_paid_in <> 0 and v_equity > v_paid_in and v_equity > 0 then
    v_growth := v_equity / (v_equity - v_paid_in);
  end if;
  v_units := greatest(round(coalesce(v_before.units, 1) * v_growth, 20), 1e-20);
  v_peak := greatest(v_equity, case when v_growth = 1 then v_before.peak_equity else round(v_before.peak_equity * v_growth, 8) end);
  if (v_peak > 0) is not true then
    raise exception 'equity must be above 0 the first time it is recorded, was %', v_equity using errcode = 'invalid_parameter_value';
  end if;
  v_drawdown := (v_peak - v_equity) / v_peak;
  insert into public.portfolio_state (equity, peak_equity, drawdown_pct, cash, open_positions, units, moved)
  values (v_equity, v_peak, v_drawdown, (payload ->> 'cash')::numeric, pg_catalog.jsonb_array_length(v_positions), v_units, v_moved)
  on conflict (singleton) do update set equity = excluded.equity, peak_equity = excluded.peak_equity,
    drawdown_pct = excluded.drawdown_pct, cash = excluded.cash, open_positions = excluded.open_positions, units = excluded.units,
    moved = coalesce(excluded.moved, public.portfolio_state.moved);
  delete from public.portfolio_positions p where not p.symbol in (select x ->> 'symbol' from pg_catalog.jsonb_array_elements(v_positions) x);
  insert into public.portfolio_positions (symbol, qty, avg_cost, stop_loss, take_profit, unrealized_pnl)
  select x ->> 'symbol', (x ->> 'qty')::numeric, (x ->> 'avg_cost')::numeric, (x ->> 'stop_loss')::numeric, (x ->> 'take_profit')::numeric,
    (x ->> 'unrealized_pnl')::numeric
  from pg_catalog.jsonb_array_elements(v_positions) x
  on conflict (symbol) do update set qty = excluded.qty, avg_cost = excluded.avg_cost, stop_loss = excluded.stop_loss,
    take_profit = excluded.take_profit, unrealized_pnl = excluded.unrealized_pnl;
  insert into public.equity_snapshots (equity, peak, drawdown_pct, recorded_at, units)
  values (v_equity, v_peak, v_drawdown, (payload ->> 'recorded_at')::timestamptz, v_units)
  on conflict (recorded_at) do update set equity = excluded.equity, peak = excluded.peak, drawdown_pct = excluded.drawdown_pct,
    units = excluded.units;
  return query select s.* from public.portfolio_state s;
end
$$;

-- Equity at the end of each month (UTC), and the return of a unit since the end of the month before; the first month counts from the first
-- snapshot. Deposits and withdrawals are in the equity and not in the return.
create or replace function public.get_monthly_returns()
returns table (month date, end_equity numeric, return_pct float8)
language sql stable security invoker set search_path = '' as $$
  with ends as (
    select distinct on (date_trunc('month', s.recorded_at at time zone 'UTC'))
      date_trunc('month', s.recorded_at at time zone 'UTC')::date as month, s.equity, s.unit_value
    from public.equity_snapshots s order by date_trunc('month', s.recorded_at at time zone 'UTC'), s.recorded_at desc
  ), starts as (
    select e.month, e.equity, e.unit_value,
      lag(e.unit_value, 1, (select s.unit_value from public.equity_snapshots s order by s.recorded_at limit 1)) over (order by e.month) as before
    from ends e
  )
  select x.month, x.equity, (x.unit_value / nullif(x.before, 0) - 1)::float8 from starts x order by x.month
$$;

-- Beside get_drawdown_history, whose columns cannot change: with what a unit was worth.
create or replace function public.get_equity_history(p_since timestamptz default null, p_limit integer default 10000)
returns table (recorded_at timestamptz, equity numeric, peak numeric, drawdown_pct float8, unit_value numeric)
language sql stable security invoker set search_path = '' as $$
  select x.recorded_at, x.equity, x.peak, x.drawdown_pct, x.unit_value from (
    select s.* from public.equity_snapshots s where p_since is null or s.recorded_at >= p_since order by s.recorded_at desc limit p_limit
  ) x order by x.recorded_at
$$;

revoke execute on function public.get_equity_history(timestamptz, integer) from public, anon, authenticated;
grant execute on function public.get_equity_history(timestamptz, integer) to service_role;
