-- What a dashboard and the daily digest ask: rates, returns, refusals, drawdowns, health, careers. Exists so that every reader gets the
-- same figures, computed where the rows are; voided trades count in none of them.

create or replace function public.get_win_rates_by_category()
returns table (category public.signal_category, closed_trades bigint, wins bigint, win_rate float8, avg_pnl_pct float8)
language sql stable security invoker set search_path = '' as $$
  select t.category, count(*), count(*) filter (where t.hit), avg(t.hit::integer)::float8, avg(t.pnl_pct)
  from public.trades t where t.hit is not null and not t.voided
  group by t.category order by t.category
$$;

-- Equity at the end of each month (UTC) against the end of the month before; the first month counts from the first snapshot.
-- Deposits and withdrawals are in the equity and so in the return.
create or replace function public.get_monthly_returns()
returns table (month date, end_equity numeric, return_pct float8)
language sql stable security invoker set search_path = '' as $$
  with ends as (
    select distinct on (date_trunc('month', s.recorded_at at time zone 'UTC'))
      date_trunc('month', s.recorded_at at time zone 'UTC')::date as month, s.equity
    from public.equity_snapshots s order by date_trunc('month', s.recorded_at at time zone 'UTC'), s.recorded_at desc
  ), starts as (
    select e.month, e.equity,
      lag(e.equity, 1, (select s.equity from public.equity_snapshots s order by s.recorded_at limit 1)) over (order by e.month) as before
    from ends e
  )
  select x.month, x.equity, (x.equity / nullif(x.before, 0) - 1)::float8 from starts x order by x.month
$$;

-- Where signals die and what binds; the share is of all decisions since then, those that passed included.
create or replace function public.get_kill_stage_stats(p_since timestamptz default null)
returns table (killed_at_stage public.stage, binding_constraint public.binding_constraint, n bigint, share float8)
language sql stable security invoker set search_path = '' as $$
  with decided as (
    select d.* from public.decision_traces d where p_since is null or d.decided_at >= p_since
  )
  select d.killed_at_stage, d.binding_constraint, count(*), count(*)::float8 / (select count(*) from decided)
  from decided d where d.killed_at_stage is not null
  group by d.killed_at_stage, d.binding_constraint order by d.killed_at_stage, count(*) desc, d.binding_constraint
$$;

create or replace function public.get_drawdown_history(p_since timestamptz default null, p_limit integer default 10000)
returns table (recorded_at timestamptz, equity numeric, peak numeric, drawdown_pct float8)
language sql stable security invoker set search_path = '' as $$
  select x.recorded_at, x.equity, x.peak, x.drawdown_pct from (
    select s.* from public.equity_snapshots s where p_since is null or s.recorded_at >= p_since order by s.recorded_at desc limit p_limit
  ) x order by x.recorded_at
$$;

create or replace function public.get_agent_health_summary()
returns table (agent_name text, status public.agent_health_status, message text, error_count integer, checked_at timestamptz,
  n_reports bigint, n_failed bigint, breaker public.breaker_state)
language sql stable security invoker set search_path = '' as $$
  select l.agent_name, l.status, l.message, l.error_count, l.checked_at, c.n_reports, c.n_failed, b.state
  from public.agent_health_latest l
  join (select h.agent_name, count(*) as n_reports, count(*) filter (where h.status = 'failed') as n_failed
        from public.agent_health h group by h.agent_name) c using (agent_name)
  left join public.circuit_breakers b using (agent_name)
  order by l.agent_name
$$;

-- Ten winning trades make a level; `wins_to_next` is how many are missing, null at the top of the ladder.
create or replace function public.get_seniority_report()
returns table (agent_name text, tier public.seniority_tier, level integer, wins integer, wins_to_next integer, cleared boolean, criteria jsonb,
  exp bigint, exp_level integer)
language sql stable security invoker set search_path = '' as $$
  select s.agent_name, s.tier, s.level, s.wins,
    case when s.tier = 'senior' and s.level = 10 then null else 10 - s.wins % 10 end,
    s.cleared, s.criteria, coalesce(e.exp, 0), coalesce(e.level, 0)
  from public.agent_seniority s left join public.agent_exp e using (agent_name)
  order by s.tier, s.level, s.agent_name
$$;

create or replace function public.get_promotion_history(p_agent_name text default null, p_limit integer default 100)
returns table (agent_name text, from_tier public.seniority_tier, from_level integer, to_tier public.seniority_tier, to_level integer,
  promoted boolean, wins integer, changed_at timestamptz)
language sql stable security invoker set search_path = '' as $$
  select h.agent_name, h.from_tier, h.from_level, h.to_tier, h.to_level, (h.to_tier, h.to_level) > (h.from_tier, h.from_level), h.wins, h.changed_at
  from public.agent_seniority_history h
  where h.from_tier is not null and (p_agent_name is null or h.agent_name = p_agent_name)
  order by h.changed_at desc, h.history_id limit p_limit
$$;

-- Closed trades by gross gain in units of the risk taken at entry: bucket 1 holds R from 1 to below 2. Trades without a stop have no R.
create or replace function public.get_r_multiple_distribution()
returns table (bucket integer, n bigint, avg_r float8)
language sql stable security invoker set search_path = '' as $$
  select floor(x.r)::integer, count(*), avg(x.r)::float8 from (
    select round(t.pnl_pct::numeric * t.fill_price / nullif(abs(t.fill_price - t.stop_loss), 0), 9) as r
    from public.trades t where t.hit is not null and not t.voided
  ) x where x.r is not null group by floor(x.r) order by 1
$$;

-- Averages are net of cost where that is known, losses negative; profit factor is the sum of gains over the sum of losses.
create or replace function public.get_performance_stats()
returns table (total_trades bigint, open_trades bigint, closed_trades bigint, voided_trades bigint, wins bigint, win_rate float8,
  avg_pnl_pct float8, avg_net_pnl_pct float8, avg_win_pct float8, avg_loss_pct float8, profit_factor float8, best_pnl_pct float8, worst_pnl_pct float8,
  total_commission numeric, max_drawdown_pct float8)
language sql stable security invoker set search_path = '' as $$
  with counted as (
    select t.*, coalesce(t.net_pnl_pct, t.pnl_pct) as net from public.trades t where not t.voided
  )
  select count(*), count(*) filter (where c.hit is null), count(c.hit), (select count(*) from public.trades v where v.voided),
    count(*) filter (where c.hit), avg(c.hit::integer)::float8, avg(c.pnl_pct), avg(c.net), avg(c.net) filter (where c.hit),
    avg(c.net) filter (where not c.hit), sum(c.net) filter (where c.hit) / nullif(-sum(c.net) filter (where not c.hit), 0),
    max(c.pnl_pct), min(c.pnl_pct), coalesce(sum(c.commission), 0), (select max(s.drawdown_pct) from public.equity_snapshots s)
  from counted c
$$;

do $$
declare
  v_function regprocedure;
begin
  for v_function in
    select p.oid::regprocedure from pg_catalog.pg_proc p
    where p.pronamespace = 'public'::regnamespace and p.proname in ('get_win_rates_by_category', 'get_monthly_returns', 'get_kill_stage_stats',
      'get_drawdown_history', 'get_agent_health_summary', 'get_seniority_report', 'get_promotion_history', 'get_r_multiple_distribution',
      'get_performance_stats')
  loop
    execute pg_catalog.format('revoke execute on function %s from public, anon, authenticated', v_function);
    execute pg_catalog.format('grant execute on function %s to service_role', v_function);
  end loop;
end
$$;
