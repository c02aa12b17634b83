-- What a running pipeline writes at once and asks at start. Exists so that a decision (its signal, trade, orders and trace) becomes durable
-- in one transaction, so that a halt outlives the process that ordered it, and so that no outcome is forgotten between two crashes.

-- Halts by scope: `all`, or `symbol:` and a ticker. A row stays when trading is resumed and says since when.
create table if not exists public.trading_halts (
  scope text primary key check (scope = 'all' or scope ~ '^symbol:\S+$'),
  reason text not null check (btrim(reason) <> ''),
  actor text not null check (btrim(actor) <> ''),
  halted_at timestamptz not null,
  resumed_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
comment on column public.trading_halts.resumed_at is 'Null while the halt is in force; else the drawdown is counted from the peak since then.';

-- Money that came or went other than by a fill: the opening balance, deposits, dividends as the broker shows them.
create table if not exists public.cash_movements (
  movement_ref text primary key check (btrim(movement_ref) <> ''),
  amount numeric not null check (amount > '-infinity' and amount < 'infinity'),
  note text not null default '',
  moved_at timestamptz not null,
  created_at timestamptz not null default now()
);
drop trigger if exists refuse_change on public.cash_movements;
create trigger refuse_change before update or delete on public.cash_movements for each row execute function public.refuse_change();
drop trigger if exists refuse_truncate on public.cash_movements;
create trigger refuse_truncate before truncate on public.cash_movements for each statement execute function public.refuse_change();

-- Closed trades whose outcome reached everybody who learns from it; written last, so that a crash in between is made up for.
create table if not exists public.trade_settlements (
  trade_id uuid primary key references public.trades,
  settled_at timestamptz not null,
  created_at timestamptz not null default now()
);

-- Shares and money by symbol as the fills have it: the only source of the book.
create or replace view public.fill_ledger with (security_invoker = true) as
  select i.symbol,
    sum(f.qty * case i.side when 'buy' then 1 else -1 end) as qty,
    sum(f.qty * f.price * case i.side when 'buy' then -1 else 1 end - f.commission) as cash
  from public.fills f join public.order_intents i on i.client_order_id = f.client_order_id
  group by i.symbol;

create or replace view public.unsettled_trades with (security_invoker = true) as
  select t.* from public.trades t
  where t.hit is not null and not t.voided and not exists (select from public.trade_settlements s where s.trade_id = t.trade_id);

create index if not exists order_intents_open on public.order_intents (created_at)
  where status in ('pending', 'submitted', 'partially_filled', 'unknown');

-- Keeps decisions, all in one statement, which announces them once. The same trace again replaces it, but never an outcome that was
-- written since.
create or replace function public.record_decision_traces(payload jsonb) returns void
language sql volatile security invoker set search_path = '' as $$
  insert into public.decision_traces as d (trace_id, signal_id, symbol, decided_at, status, stages, killed_at_stage, kill_reason,
    binding_constraint, llm_reasoning, confidence, position_pct, order_id, pnl_pct, otel_trace_id, timings)
  select r.trace_id, r.signal_id, r.symbol, r.decided_at, r.status, r.stages, r.killed_at_stage, r.kill_reason, r.binding_constraint,
    r.llm_reasoning, r.confidence, r.position_pct, r.order_id, r.pnl_pct, r.otel_trace_id, coalesce(r.timings, '{}')
  from jsonb_populate_recordset(null::public.decision_traces, payload) r
  on conflict (trace_id) do update set symbol = excluded.symbol, decided_at = excluded.decided_at, status = excluded.status,
    stages = excluded.stages, killed_at_stage = excluded.killed_at_stage, kill_reason = excluded.kill_reason,
    binding_constraint = excluded.binding_constraint, llm_reasoning = excluded.llm_reasoning, confidence = excluded.confidence,
    position_pct = excluded.position_pct, order_id = excluded.order_id, pnl_pct = excluded.pnl_pct,
    otel_trace_id = excluded.otel_trace_id, timings = excluded.timings
  where d.status <> 'closed'
$$;

create or replace function public.record_decision_trace(payload jsonb) returns void
language sql volatile security invoker set search_path = '' as $$
  select public.record_decision_traces(jsonb_build_array(payload))
$$;

-- Writes one batch in one transaction: signals that are not there yet, screenings, trades, orders, what became of orders, fills, traces,
-- outcomes, audit entries; each part may be absent. An order or a trade that is there already refuses the whole batch.
create or replace function public.record_decisions(payload jsonb) returns void
language plpgsql security invoker set search_path = '' as $$
declare
  v_item jsonb;
begin
  insert into public.signals (signal_id, source, source_key, source_url, headline, summary, published_at, category, severity, affected_tickers,
    supplier, raw_text, consumed_by_icarus, consumed_at)
  select (x ->> 'signal_id')::uuid, x ->> 'source', x ->> 'source_key', x ->> 'source_url', x ->> 'headline', coalesce(x ->> 'summary', ''),
    (x ->> 'published_at')::timestamptz, (x ->> 'category')::public.signal_category, (x ->> 'severity')::public.severity,
    array(select pg_catalog.jsonb_array_elements_text(coalesce(x -> 'affected_tickers', '[]'))), x ->> 'supplier', x ->> 'raw_text', true,
    pg_catalog.clock_timestamp()
  from pg_catalog.jsonb_array_elements(coalesce(record_decisions.payload -> 'signals', '[]')) x
  on conflict do nothing;
  insert into public.filtered_signals (signal_id, compliance_score, esg_flag, ofac_flag, downgraded, killed, severity, notes, list_version,
    matched_entry)
  select (x ->> 'signal_id')::uuid, (x ->> 'compliance_score')::float8, (x ->> 'esg_flag')::boolean, (x ->> 'ofac_flag')::boolean,
    (x ->> 'downgraded')::boolean, (x ->> 'killed')::boolean, (x ->> 'severity')::public.severity,
    array(select pg_catalog.jsonb_array_elements_text(x -> 'notes')), x ->> 'list_version', x ->> 'matched_entry'
  from pg_catalog.jsonb_array_elements(coalesce(record_decisions.payload -> 'filtered', '[]')) x
  on conflict (signal_id) do update set compliance_score = excluded.compliance_score, esg_flag = excluded.esg_flag,
    ofac_flag = excluded.ofac_flag, downgraded = excluded.downgraded, killed = excluded.killed, severity = excluded.severity,
    notes = excluded.notes, list_version = excluded.list_version, matched_entry = excluded.matched_entry;
  insert into public.order_intents (client_order_id, signal_id, symbol, side, qty, payload, status)
  select x ->> 'client_order_id', (x ->> 'signal_id')::uuid, x ->> 'symbol', (x ->> 'side')::public.side, (x ->> 'qty')::numeric,
    coalesce(x -> 'payload', '{}'), (x ->> 'status')::public.pipeline_status
  from pg_catalog.jsonb_array_elements(coalesce(record_decisions.payload -> 'intents', '[]')) x;
  insert into public.trades (signal_id, context_key, confidence, position_pct, is_exploration, symbol, side, client_order_id, stop_loss,
    take_profit, paper_trading, recorded_at)
  select (x ->> 'signal_id')::uuid, x ->> 'context_key', (x ->> 'confidence')::float8, (x ->> 'position_pct')::float8,
    (x ->> 'is_exploration')::boolean, x ->> 'symbol', (x ->> 'side')::public.side, x ->> 'client_order_id', (x ->> 'stop_loss')::numeric,
    (x ->> 'take_profit')::numeric, (x ->> 'paper_trading')::boolean, (x ->> 'recorded_at')::timestamptz
  from pg_catalog.jsonb_array_elements(coalesce(record_decisions.payload -> 'trades', '[]')) x;
  -- A fill says more than the broker's word on its order: what is filled stays filled, and what ended does not live again.
  update public.order_intents i set status = (x ->> 'status')::public.pipeline_status
  from pg_catalog.jsonb_array_elements(coalesce(record_decisions.payload -> 'statuses', '[]')) x
  where i.client_order_id = x ->> 'client_order_id' and i.status not in ('filled', 'cancelled', 'expired', 'rejected', 'closed')
    and i.status <> (x ->> 'status')::public.pipeline_status
    and not (i.status = 'partially_filled' and x ->> 'status' = 'submitted');
  update public.trades t set order_id = x ->> 'order_id'
  from pg_catalog.jsonb_array_elements(coalesce(record_decisions.payload -> 'statuses', '[]')) x
  where t.client_order_id = x ->> 'client_order_id' and x ->> 'order_id' is not null and t.order_id is distinct from x ->> 'order_id';
  for v_item in select x from pg_catalog.jsonb_array_elements(coalesce(record_decisions.payload -> 'fills', '[]')) with ordinality as f (x, n) order by n loop
    -- A share that is reported late of an order that had ended without one makes it a trade again.
    update public.trades t set voided = false where t.client_order_id = v_item ->> 'client_order_id' and t.voided and t.qty = 0;
    perform public.record_fill(v_item);
  end loop;
  -- An order that ended without a single share was never a trade.
  update public.trades t set voided = true
  from pg_catalog.jsonb_array_elements(coalesce(record_decisions.payload -> 'statuses', '[]')) x
  join public.order_intents i on i.client_order_id = x ->> 'client_order_id'
  where t.client_order_id = i.client_order_id and not t.voided and t.qty = 0 and i.status in ('cancelled', 'expired', 'rejected');
  if record_decisions.payload ? 'traces' then
    perform public.record_decision_traces(record_decisions.payload -> 'traces');
  end if;
  for v_item in select x from pg_catalog.jsonb_array_elements(coalesce(record_decisions.payload -> 'exits', '[]')) with ordinality as e (x, n)
    order by n
  loop
    perform public.close_trade(v_item);
  end loop;
  insert into public.audit_log (event_type, actor, subject, payload)
  select x ->> 'event_type', x ->> 'actor', x ->> 'subject', coalesce(x -> 'payload', '{}')
  from pg_catalog.jsonb_array_elements(coalesce(record_decisions.payload -> 'audit', '[]')) with ordinality as a (x, n) order by n;
end
$$;

-- Halts a scope, once: true when it was not halted before. What is halted stays halted for its first reason.
create or replace function public.halt_trading(p_scope text, p_reason text, p_actor text, p_at timestamptz) returns boolean
language plpgsql security invoker set search_path = '' as $$
begin
  insert into public.trading_halts as h (scope, reason, actor, halted_at) values (p_scope, p_reason, p_actor, p_at)
  on conflict (scope) do update set reason = excluded.reason, actor = excluded.actor, halted_at = excluded.halted_at, resumed_at = null
  where h.resumed_at is not null;
  if not found then
    return false;
  end if;
  insert into public.audit_log (event_type, actor, subject, payload)
  values ('trading.halted', p_actor, p_scope, pg_catalog.jsonb_build_object('reason', p_reason, 'at', p_at));
  return true;
end
$$;

-- Lifts a halt: true when there was one.
create or replace function public.resume_trading(p_scope text, p_actor text, p_at timestamptz) returns boolean
language plpgsql security invoker set search_path = '' as $$
begin
  update public.trading_halts h set resumed_at = p_at, actor = p_actor where h.scope = p_scope and h.resumed_at is null;
  if not found then
    return false;
  end if;
  insert into public.audit_log (event_type, actor, subject, payload)
  values ('trading.resumed', p_actor, p_scope, pg_catalog.jsonb_build_object('at', p_at));
  return true;
end
$$;

do $$
declare
  v_name text;
begin
  foreach v_name in array array['trading_halts', 'cash_movements', 'trade_settlements'] loop
    execute pg_catalog.format('alter table public.%I enable row level security', v_name);
    execute pg_catalog.format('revoke all on public.%I from public, anon, authenticated', v_name);
    execute pg_catalog.format('grant all on public.%I to service_role', v_name);
  end loop;
  drop trigger if exists set_updated_at on public.trading_halts;
  create trigger set_updated_at before update on public.trading_halts for each row execute function public.set_updated_at();
  revoke all on public.fill_ledger, public.unsettled_trades from public, anon, authenticated;
  grant select on public.fill_ledger, public.unsettled_trades to service_role;
  foreach v_name in array array['public.record_decisions(jsonb)', 'public.record_decision_traces(jsonb)', 'public.halt_trading(text, text, text, timestamptz)',
    'public.resume_trading(text, text, timestamptz)'] loop
    execute pg_catalog.format('revoke execute on function %s from public, anon, authenticated', v_name);
    execute pg_catalog.format('grant execute on function %s to service_role', v_name);
  end loop;
end
$$;
