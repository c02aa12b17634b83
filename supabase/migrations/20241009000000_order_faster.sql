-- What takes the time of an order out of it: a turn's orders in one transaction, the view of the market in one statement, and what is open
-- and what was last traded by indexes. Exists because a turn decides on several orders at one moment, and a desk shall stand 300 a second.

-- Places orders in their order, each as place_paper_order does, all of them or none, and returns them in the same order.
create or replace function public.place_paper_orders(payload jsonb) returns setof public.paper_orders
language plpgsql security invoker set search_path = '' as $$
declare
  v_order jsonb;
begin
  for v_order in
    select x from pg_catalog.jsonb_array_elements(place_paper_orders.payload -> 'orders') with ordinality as o (x, n) order by n
  loop
    return query select p.* from public.place_paper_order(v_order) p;
  end loop;
end
$$;

-- Keeps a view of the market; the same time again replaces it.
create or replace function public.record_macro_context(payload jsonb) returns void
language sql volatile security invoker set search_path = '' as $$
  insert into public.macro_context (as_of, regime, vix, sp500_1m_return, sector_momentum, suppress, suppress_reason)
  select r.as_of, r.regime, r.vix, r.sp500_1m_return, r.sector_momentum, r.suppress, r.suppress_reason
  from jsonb_populate_record(null::public.macro_context, payload) r
  on conflict (as_of) do update set regime = excluded.regime, vix = excluded.vix, sp500_1m_return = excluded.sp500_1m_return,
    sector_momentum = excluded.sector_momentum, suppress = excluded.suppress, suppress_reason = excluded.suppress_reason
$$;

-- Writes one batch in one transaction: signals that are not there yet, screenings, trades, orders, what became of orders, fills, traces,
-- outcomes, audit entries. A part that is absent costs nothing: a statement fires its triggers even where it changes no row. An order or a
-- trade that is there already refuses the whole batch.
create or replace function public.record_decisions(payload jsonb) returns void
language plpgsql security invoker set search_path = '' as $$
declare
  v_item jsonb;
  v_told text[];  -- of which orders it is told what became: by these the indexes are used, whatever the planner thinks of JSON
begin
  if record_decisions.payload ? 'signals' then
    insert into public.signals (signal_id, source, source_key, source_url, headline, summary, published_at, category, severity, affected_tickers,
      supplier, raw_text, consumed_by_icarus, consumed_at)
    select (x ->> 'signal_id')::uuid, x ->> 'source', x ->> 'source_key', x ->> 'source_url', x ->> 'headline', coalesce(x ->> 'summary', ''),
      (x ->> 'published_at')::timestamptz, (x ->> 'category')::public.signal_category, (x ->> 'severity')::public.severity,
      array(select pg_catalog.jsonb_array_elements_text(coalesce(x -> 'affected_tickers', '[]'))), x ->> 'supplier', x ->> 'raw_text', true,
      pg_catalog.clock_timestamp()
    from pg_catalog.jsonb_array_elements(record_decisions.payload -> 'signals') x
    on conflict do nothing;
  end if;
  if record_decisions.payload ? 'filtered' then
    insert into public.filtered_signals (signal_id, compliance_score, esg_flag, ofac_flag, downgraded, killed, severity, notes, list_version,
      matched_entry)
    select (x ->> 'signal_id')::uuid, (x ->> 'compliance_score')::float8, (x ->> 'esg_flag')::boolean, (x ->> 'ofac_flag')::boolean,
      (x ->> 'downgraded')::boolean, (x ->> 'killed')::boolean, (x ->> 'severity')::public.severity,
      array(select pg_catalog.jsonb_array_elements_text(x -> 'notes')), x ->> 'list_version', x ->> 'matched_entry'
    from pg_catalog.jsonb_array_elements(record_decisions.payload -> 'filtered') x
    on conflict (signal_id) do update set compliance_score = excluded.compliance_score, esg_flag = excluded.esg_flag,
      ofac_flag = excluded.ofac_flag, downgraded = excluded.downgraded, killed = excluded.killed, severity = excluded.severity,
      notes = excluded.notes, list_version = excluded.list_version, matched_entry = excluded.matched_entry;
  end if;
  if record_decisions.payload ? 'intents' then
    insert into public.order_intents (client_order_id, signal_id, symbol, side, qty, payload, status)
    select x ->> 'client_order_id', (x ->> 'signal_id')::uuid, x ->> 'symbol', (x ->> 'side')::public.side, (x ->> 'qty')::numeric,
      coalesce(x -> 'payload', '{}'), (x ->> 'status')::public.pipeline_status
    from pg_catalog.jsonb_array_elements(record_decisions.payload -> 'intents') x;
  end if;
  if record_decisions.payload ? 'trades' then
    insert into public.trades (signal_id, context_key, confidence, position_pct, is_exploration, symbol, side, client_order_id, stop_loss,
      take_profit, paper_trading, recorded_at)
    select (x ->> 'signal_id')::uuid, x ->> 'context_key', (x ->> 'confidence')::float8, (x ->> 'position_pct')::float8,
      (x ->> 'is_exploration')::boolean, x ->> 'symbol', (x ->> 'side')::public.side, x ->> 'client_order_id', (x ->> 'stop_loss')::numeric,
      (x ->> 'take_profit')::numeric, (x ->> 'paper_trading')::boolean, (x ->> 'recorded_at')::timestamptz
    from pg_catalog.jsonb_array_elements(record_decisions.payload -> 'trades') x;
  end if;
  if record_decisions.payload ? 'statuses' then
    v_told := array(select x ->> 'client_order_id' from pg_catalog.jsonb_array_elements(record_decisions.payload -> 'statuses') x);
    -- A fill says more than the broker's word on its order: what is filled stays filled, and what ended does not live again.
    update public.order_intents i set status = (x ->> 'status')::public.pipeline_status
    from pg_catalog.jsonb_array_elements(record_decisions.payload -> 'statuses') x
    where i.client_order_id = any(v_told) and i.client_order_id = x ->> 'client_order_id' and i.status not in ('filled', 'cancelled', 'expired', 'rejected', 'closed')
      and i.status <> (x ->> 'status')::public.pipeline_status and not (i.status = 'partially_filled' and x ->> 'status' = 'submitted');
    update public.trades t set order_id = x ->> 'order_id'
    from pg_catalog.jsonb_array_elements(record_decisions.payload -> 'statuses') x
    where t.client_order_id = any(v_told) and t.client_order_id = x ->> 'client_order_id' and x ->> 'order_id' is not null
      and t.order_id is distinct from x ->> 'order_id';
  end if;
  if record_decisions.payload ? 'fills' then
    for v_item in select x from pg_catalog.jsonb_array_elements(record_decisions.payload -> 'fills') with ordinality as f (x, n) order by n loop
      -- A share that is reported late of an order that had ended without one makes it a trade again.
      update public.trades t set voided = false where t.client_order_id = v_item ->> 'client_order_id' and t.voided and t.qty = 0;
      perform public.record_fill(v_item);
    end loop;
  end if;
  if record_decisions.payload ? 'statuses' then
    -- An order that ended without a single share was never a trade.
    update public.trades t set voided = true
    from public.order_intents i
    where i.client_order_id = any(v_told) and t.client_order_id = i.client_order_id and not t.voided and t.qty = 0
      and i.status in ('cancelled', 'expired', 'rejected');
  end if;
  if record_decisions.payload ? 'traces' then
    perform public.record_decision_traces(record_decisions.payload -> 'traces');
  end if;
  if record_decisions.payload ? 'exits' then
    for v_item in select x from pg_catalog.jsonb_array_elements(record_decisions.payload -> 'exits') with ordinality as e (x, n)
      order by n
    loop
      perform public.close_trade(v_item);
    end loop;
  end if;
  if record_decisions.payload ? 'audit' then
    insert into public.audit_log (event_type, actor, subject, payload)
    select x ->> 'event_type', x ->> 'actor', x ->> 'subject', coalesce(x -> 'payload', '{}')
    from pg_catalog.jsonb_array_elements(record_decisions.payload -> 'audit') with ordinality as a (x, n) order by n;
  end if;
end
$$;

-- Orders that may still be filled, oldest first. The states are named here, so that their index serves; it cannot serve parameters.
create or replace function public.list_open_intents() returns setof public.order_intents
language sql stable security invoker set search_path = '' as $$
  select i.* from public.order_intents i where i.status in ('pending', 'submitted', 'partially_filled', 'unknown')
  order by i.created_at, i.client_order_id
$$;

-- As they are asked for: `voided is false` is not seen to be `not voided`.
create index if not exists trades_recorded_at on public.trades (recorded_at) where voided is false;
create index if not exists trades_still_open on public.trades (recorded_at, trade_id) where hit is null and voided is false;

do $$
declare
  v_name text;
begin
  foreach v_name in array array['public.place_paper_orders(jsonb)', 'public.record_macro_context(jsonb)', 'public.list_open_intents()'] loop
    execute pg_catalog.format('revoke execute on function %s from public, anon, authenticated', v_name);
    execute pg_catalog.format('grant execute on function %s to service_role', v_name);
  end loop;
end
$$;
