-- Trades, the orders and fills behind them, the book they make, and the trace of every decision. Exists so that an order is sent once,
-- a fill counted once, and an outcome computed in one place from trusted prices.

create table if not exists public.trades (
  trade_id uuid primary key default gen_random_uuid(),
  signal_id uuid references public.signals,
  context_key text not null,
  category public.signal_category not null,
  regime public.market_regime not null,
  vix_band public.vix_band not null,
  confidence float8 not null check (confidence between 0 and 1),
  position_pct float8 not null check (position_pct between 0 and 1),
  is_exploration boolean not null default false,
  symbol text not null check (symbol <> '' and symbol = upper(symbol) and symbol !~ '\s'),
  side public.side not null,
  client_order_id text not null unique check (btrim(client_order_id) <> ''),
  order_id text check (btrim(order_id) <> ''),
  qty numeric not null default 0 check (qty >= 0 and qty < 'infinity'),
  fill_price numeric check (fill_price > 0 and fill_price < 'infinity'),
  stop_loss numeric check (stop_loss > 0 and stop_loss < 'infinity'),
  take_profit numeric check (take_profit > 0 and take_profit < 'infinity'),
  commission numeric not null default 0 check (commission > '-infinity' and commission < 'infinity'),
  exit_price numeric check (exit_price > 0 and exit_price < 'infinity'),
  pnl_pct float8 check (pnl_pct > '-infinity' and pnl_pct < 'infinity'),
  net_pnl_pct float8 check (net_pnl_pct > '-infinity' and net_pnl_pct < 'infinity'),
  hit boolean,
  closed_at timestamptz,
  exit_reason text,
  paper_trading boolean not null default true,
  voided boolean not null default false,
  recorded_at timestamptz not null default now(),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint trades_context_key_matches_its_parts check (context_key = category::text || '|' || regime::text || '|' || vix_band::text),
  constraint trades_filled_has_a_price check ((qty > 0) = (fill_price is not null)),
  constraint trades_closed_has_an_outcome check ((hit is null) = (pnl_pct is null) and (hit is null) = (closed_at is null)),
  constraint trades_hit_is_a_net_gain check (net_pnl_pct is null or hit is not distinct from (net_pnl_pct > 0)),
  constraint trades_exploration_is_on_paper check (paper_trading or not is_exploration)
);
comment on column public.trades.hit is 'Whether it gained after cost; null while it is open.';
comment on column public.trades.pnl_pct is 'Gross return of the position as a fraction.';
comment on column public.trades.voided is 'Counts in no statistic: a double, or an outcome without a trusted fill.';
create index if not exists trades_signal_id on public.trades (signal_id);
create index if not exists trades_context_key on public.trades (context_key);
create index if not exists trades_symbol on public.trades (symbol, recorded_at);
create index if not exists trades_open on public.trades (symbol, recorded_at) where hit is null and not voided;

-- The one place where the parts of a context key are told apart. A part that is given must agree; the constraint sees to it.
create or replace function public.split_context_key() returns trigger
language plpgsql set search_path = '' as $$
begin
  new.category := coalesce(new.category, pg_catalog.split_part(new.context_key, '|', 1)::public.signal_category);
  new.regime := coalesce(new.regime, pg_catalog.split_part(new.context_key, '|', 2)::public.market_regime);
  new.vix_band := coalesce(new.vix_band, pg_catalog.split_part(new.context_key, '|', 3)::public.vix_band);
  return new;
end
$$;
drop trigger if exists split_context_key on public.trades;
create trigger split_context_key before insert or update of context_key, category, regime, vix_band on public.trades
  for each row execute function public.split_context_key();

create table if not exists public.order_intents (
  client_order_id text primary key check (btrim(client_order_id) <> ''),
  signal_id uuid unique references public.signals,
  symbol text not null check (symbol <> '' and symbol = upper(symbol) and symbol !~ '\s'),
  side public.side not null,
  qty numeric not null check (qty > 0 and qty < 'infinity'),
  payload jsonb not null default '{}' check (octet_length(payload::text) <= 1048576),
  status public.pipeline_status not null default 'pending' check (status <> 'killed'),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
comment on table public.order_intents is 'Written before the broker is asked. One entry order a signal; exits carry no signal.';

create table if not exists public.fills (
  exec_id text primary key check (btrim(exec_id) <> ''),
  client_order_id text not null references public.order_intents,
  qty numeric not null check (qty > 0 and qty < 'infinity'),
  price numeric not null check (price > 0 and price < 'infinity'),
  commission numeric not null default 0 check (commission > '-infinity' and commission < 'infinity'),
  filled_at timestamptz not null,
  created_at timestamptz not null default now()
);
create index if not exists fills_client_order_id on public.fills (client_order_id);
drop trigger if exists refuse_change on public.fills;
create trigger refuse_change before update or delete on public.fills for each row execute function public.refuse_change();
drop trigger if exists refuse_truncate on public.fills;
create trigger refuse_truncate before truncate on public.fills for each statement execute function public.refuse_change();

create table if not exists public.decision_traces (
  trace_id text primary key check (btrim(trace_id) <> ''),
  signal_id uuid not null references public.signals,
  symbol text check (symbol <> '' and symbol = upper(symbol) and symbol !~ '\s'),
  decided_at timestamptz not null,
  status public.pipeline_status not null,
  stages jsonb not null check (jsonb_typeof(stages) = 'array' and octet_length(stages::text) <= 1048576),
  killed_at_stage public.stage,
  kill_reason text,
  binding_constraint public.binding_constraint,
  llm_reasoning text check (octet_length(llm_reasoning) <= 1048576),
  confidence float8 check (confidence between 0 and 1),
  position_pct float8 check (position_pct between 0 and 1),
  order_id text,
  pnl_pct float8 check (pnl_pct > '-infinity' and pnl_pct < 'infinity'),
  otel_trace_id text,
  timings jsonb not null default '{}' check (jsonb_typeof(timings) = 'object' and octet_length(timings::text) <= 65536),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint decision_traces_killed_says_where_and_why check (
    (status = 'killed') = (killed_at_stage is not null) and (status = 'killed') = (kill_reason is not null)
    and (status <> 'killed' or binding_constraint is not null)),
  constraint decision_traces_closed_has_a_pnl check ((status = 'closed') = (pnl_pct is not null))
);
create index if not exists decision_traces_signal_id on public.decision_traces (signal_id);
create index if not exists decision_traces_decided_at on public.decision_traces (decided_at);

create table if not exists public.portfolio_state (
  singleton boolean primary key default true check (singleton),
  equity numeric not null check (equity >= 0 and equity < 'infinity'),
  peak_equity numeric not null check (peak_equity > 0 and peak_equity < 'infinity'),
  drawdown_pct float8 not null,
  cash numeric not null check (cash > '-infinity' and cash < 'infinity'),
  open_positions integer not null check (open_positions >= 0),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint portfolio_state_peak_is_a_peak check (peak_equity >= equity),
  constraint portfolio_state_drawdown_fits check (abs(drawdown_pct - ((peak_equity - equity) / peak_equity)::float8) <= 1e-9)
);

create table if not exists public.portfolio_positions (
  symbol text primary key check (symbol <> '' and symbol = upper(symbol) and symbol !~ '\s'),
  qty numeric not null check (qty <> 0 and qty > '-infinity' and qty < 'infinity'),
  avg_cost numeric not null check (avg_cost > 0 and avg_cost < 'infinity'),
  stop_loss numeric check (stop_loss > 0 and stop_loss < 'infinity'),
  take_profit numeric check (take_profit > 0 and take_profit < 'infinity'),
  unrealized_pnl numeric check (unrealized_pnl > '-infinity' and unrealized_pnl < 'infinity'),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
comment on column public.portfolio_positions.unrealized_pnl is 'In currency at the last price; null while the price is unknown.';

create table if not exists public.equity_snapshots (
  snapshot_id uuid primary key default gen_random_uuid(),
  equity numeric not null check (equity >= 0 and equity < 'infinity'),
  peak numeric not null check (peak > 0 and peak < 'infinity'),
  drawdown_pct float8 not null,
  recorded_at timestamptz not null unique,
  created_at timestamptz not null default now(),
  constraint equity_snapshots_peak_is_a_peak check (peak >= equity),
  constraint equity_snapshots_drawdown_fits check (abs(drawdown_pct - ((peak - equity) / peak)::float8) <= 1e-9)
);

-- Counts a fill once, however often the broker reports it, and brings its order and its trade up to date. The same execution with
-- other figures is refused: one of the two reports is wrong.
create or replace function public.record_fill(payload jsonb)
returns table (recorded boolean, filled_qty numeric, average_price numeric, total_commission numeric, status public.pipeline_status)
language plpgsql security invoker set search_path = '' as $$
declare
  v_intent public.order_intents;
  v_fill public.fills;
begin
  select i.* into v_intent from public.order_intents i where i.client_order_id = record_fill.payload ->> 'client_order_id' for update;
  if not found then
    raise exception 'client_order_id % has no intent: an order is written down before it is sent', record_fill.payload ->> 'client_order_id'
      using errcode = 'foreign_key_violation';
  end if;
  insert into public.fills as f (exec_id, client_order_id, qty, price, commission, filled_at)
  values (record_fill.payload ->> 'exec_id', v_intent.client_order_id, (record_fill.payload ->> 'qty')::numeric, (record_fill.payload ->> 'price')::numeric,
    coalesce((record_fill.payload ->> 'commission')::numeric, 0), (record_fill.payload ->> 'filled_at')::timestamptz)
  on conflict (exec_id) do nothing;
  recorded := found;
  if not recorded then
    select f.* into v_fill from public.fills f where f.exec_id = record_fill.payload ->> 'exec_id';
    if (v_fill.client_order_id, v_fill.qty, v_fill.price, v_fill.commission) is distinct from (v_intent.client_order_id,
      (record_fill.payload ->> 'qty')::numeric, (record_fill.payload ->> 'price')::numeric, coalesce((record_fill.payload ->> 'commission')::numeric, 0)) then
      raise exception 'exec_id % was recorded with other figures', v_fill.exec_id using errcode = 'unique_violation';
    end if;
  end if;
  select sum(f.qty), sum(f.qty * f.price) / sum(f.qty), sum(f.commission) into filled_qty, average_price, total_commission
  from public.fills f where f.client_order_id = v_intent.client_order_id;
  if filled_qty > v_intent.qty then
    raise exception 'qty % filled of client_order_id % is more than the % ordered', filled_qty, v_intent.client_order_id, v_intent.qty
      using errcode = 'check_violation';
  end if;
  status := case when filled_qty = v_intent.qty then 'filled' else 'partially_filled' end;
  if recorded then
    -- An order that ended early (cancelled, expired) keeps that state when a late fill of a part of it is reported.
    update public.order_intents i set status = record_fill.status
    where i.client_order_id = v_intent.client_order_id
      and (record_fill.status = 'filled' or i.status not in ('cancelled', 'expired', 'closed'));
    update public.trades t set qty = filled_qty, fill_price = average_price, commission = total_commission
    where t.client_order_id = v_intent.client_order_id and t.hit is null;
  end if;
  return next;
end
$$;

-- Closes a trade at a trusted price: gross and net return, hit, and the outcome in its decision trace, in one transaction. Closing
-- it again with the same exit changes nothing; with another it is refused.
create or replace function public.close_trade(payload jsonb) returns setof public.trades
language plpgsql security invoker set search_path = '' as $$
declare
  v_trade public.trades;
  v_exit_price numeric := (payload ->> 'exit_price')::numeric;
  v_exit_reason text := payload ->> 'exit_reason';
  v_closed_at timestamptz := (payload ->> 'closed_at')::timestamptz;
  v_commission numeric := coalesce((payload ->> 'commission')::numeric, 0);
  v_gain numeric;
begin
  if (v_exit_price > 0 and v_exit_price < 'infinity' and v_closed_at is not null and btrim(v_exit_reason) <> ''
      and v_commission > '-infinity' and v_commission < 'infinity') is not true then
    raise exception 'exit_price must be above 0, exit_reason and closed_at given, commission finite' using errcode = 'invalid_parameter_value';
  end if;
  select t.* into v_trade from public.trades t where t.trade_id = (payload ->> 'trade_id')::uuid for update;
  if not found then
    raise exception 'unknown trade_id %', payload ->> 'trade_id' using errcode = 'foreign_key_violation';
  end if;
  if v_trade.hit is not null then
    if (v_trade.exit_price, v_trade.exit_reason, v_trade.closed_at) is distinct from (v_exit_price, v_exit_reason, v_closed_at) then
      raise exception 'trade_id % was closed at % on %: an outcome is written once', v_trade.trade_id, v_trade.exit_price, v_trade.closed_at
        using errcode = 'restrict_violation';
    end if;
    return next v_trade;
    return;
  end if;
  if v_trade.voided or v_trade.fill_price is null then
    raise exception 'trade_id % cannot be closed: it is voided or has no fill', v_trade.trade_id using errcode = 'restrict_violation';
  end if;
  -- In money first, which is exact: a gain that the commission eats to the cent is no hit.
  v_gain := (v_exit_price - v_trade.fill_price) * v_trade.qty * case v_trade.side when 'buy' then 1 else -1 end;
  v_commission := v_trade.commission + v_commission;
  update public.trades t set exit_price = v_exit_price, exit_reason = v_exit_reason, closed_at = v_closed_at, commission = v_commission,
    pnl_pct = v_gain / (v_trade.fill_price * v_trade.qty), net_pnl_pct = (v_gain - v_commission) / (v_trade.fill_price * v_trade.qty),
    hit = v_gain > v_commission
  where t.trade_id = v_trade.trade_id
  returning t.* into v_trade;
  update public.decision_traces d set status = 'closed', pnl_pct = v_trade.pnl_pct
  where d.signal_id = v_trade.signal_id and d.symbol = v_trade.symbol and d.status in ('submitted', 'partially_filled', 'filled', 'unknown');
  return next v_trade;
end
$$;

-- Keeps a decision. The same trace again replaces it, but never an outcome that was written since.
create or replace function public.record_decision_trace(payload jsonb) returns void
language sql volatile security invoker set search_path = '' as $$
  insert into public.decision_traces as d (trace_id, signal_id, symbol, decided_at, status, stages, killed_at_stage, kill_reason,
    binding_constraint, llm_reasoning, confidence, position_pct, order_id, pnl_pct, otel_trace_id, timings)
  select r.trace_id, r.signal_id, r.symbol, r.decided_at, r.status, r.stages, r.killed_at_stage, r.kill_reason, r.binding_constraint,
    r.llm_reasoning, r.confidence, r.position_pct, r.order_id, r.pnl_pct, r.otel_trace_id, coalesce(r.timings, '{}')
  from jsonb_populate_record(null::public.decision_traces, payload) r
  on conflict (trace_id) do update set symbol = excluded.symbol, decided_at = excluded.decided_at, status = excluded.status,
    stages = excluded.stages, killed_at_stage = excluded.killed_at_stage, kill_reason = excluded.kill_reason,
    binding_constraint = excluded.binding_constraint, llm_reasoning = excluded.llm_reasoning, confidence = excluded.confidence,
    position_pct = excluded.position_pct, order_id = excluded.order_id, pnl_pct = excluded.pnl_pct,
    otel_trace_id = excluded.otel_trace_id, timings = excluded.timings
  where d.status <> 'closed'
$$;

-- Replaces the book and appends its equity to the history, in one transaction. The peak is the highest equity ever recorded.
create or replace function public.record_portfolio(payload jsonb) returns setof public.portfolio_state
language plpgsql security invoker set search_path = '' as $$
declare
  v_equity numeric := (payload ->> 'equity')::numeric;
  v_positions jsonb := coalesce(payload -> 'positions', '[]');
  v_peak numeric;
  v_drawdown float8;
begin
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('public.portfolio_state'));
  select greatest(v_equity, max(s.peak_equity)) into v_peak from public.portfolio_state s;
  if (v_peak > 0) is not true then
    raise exception 'equity must be above 0 the first time it is recorded, was %', v_equity using errcode = 'invalid_parameter_value';
  end if;
  v_drawdown := (v_peak - v_equity) / v_peak;
  insert into public.portfolio_state (equity, peak_equity, drawdown_pct, cash, open_positions)
  values (v_equity, v_peak, v_drawdown, (payload ->> 'cash')::numeric, pg_catalog.jsonb_array_length(v_positions))
  on conflict (singleton) do update set equity = excluded.equity, peak_equity = excluded.peak_equity,
    drawdown_pct = excluded.drawdown_pct, cash = excluded.cash, open_positions = excluded.open_positions;
  delete from public.portfolio_positions p where not p.symbol in (select x ->> 'symbol' from pg_catalog.jsonb_array_elements(v_positions) x);
  insert into public.portfolio_positions (symbol, qty, avg_cost, stop_loss, take_profit, unrealized_pnl)
  select x ->> 'symbol', (x ->> 'qty')::numeric, (x ->> 'avg_cost')::numeric, (x ->> 'stop_loss')::numeric, (x ->> 'take_profit')::numeric,
    (x ->> 'unrealized_pnl')::numeric
  from pg_catalog.jsonb_array_elements(v_positions) x
  on conflict (symbol) do update set qty = excluded.qty, avg_cost = excluded.avg_cost, stop_loss = excluded.stop_loss,
    take_profit = excluded.take_profit, unrealized_pnl = excluded.unrealized_pnl;
  insert into public.equity_snapshots (equity, peak, drawdown_pct, recorded_at)
  values (v_equity, v_peak, v_drawdown, (payload ->> 'recorded_at')::timestamptz)
  on conflict (recorded_at) do update set equity = excluded.equity, peak = excluded.peak, drawdown_pct = excluded.drawdown_pct;
  return query select s.* from public.portfolio_state s;
end
$$;

do $$
declare
  v_name text;
begin
  foreach v_name in array array['trades', 'order_intents', 'fills', 'decision_traces', 'portfolio_state', 'portfolio_positions', 'equity_snapshots'] loop
    execute pg_catalog.format('alter table public.%I enable row level security', v_name);
    execute pg_catalog.format('revoke all on public.%I from public, anon, authenticated', v_name);
    execute pg_catalog.format('grant all on public.%I to service_role', v_name);
  end loop;
  foreach v_name in array array['trades', 'order_intents', 'decision_traces', 'portfolio_state', 'portfolio_positions'] loop
    execute pg_catalog.format('drop trigger if exists set_updated_at on public.%I', v_name);
    execute pg_catalog.format('create trigger set_updated_at before update on public.%I for each row execute function public.set_updated_at()', v_name);
  end loop;
  revoke execute on function public.split_context_key() from public, anon, authenticated;
  foreach v_name in array array['public.record_fill(jsonb)', 'public.close_trade(jsonb)',
    'public.record_portfolio(jsonb)', 'public.record_decision_trace(jsonb)'] loop
    execute pg_catalog.format('revoke execute on function %s from public, anon, authenticated', v_name);
    execute pg_catalog.format('grant execute on function %s to service_role', v_name);
  end loop;
end
$$;
