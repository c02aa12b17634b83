-- The paper broker's side of the counter: its account, orders, fills, positions and the bars it has seen. Exists so that paper trading
-- survives a crash of any process: an order is placed once, a bar is processed once, and cash and positions are the sum of the fills.

create table if not exists public.paper_accounts (
  account text primary key check (btrim(account) <> ''),
  currency text not null check (currency ~ '^[A-Z]{3}$'),
  initial_cash numeric not null check (initial_cash > 0 and initial_cash < 'infinity'),
  cash numeric not null check (cash > '-infinity' and cash < 'infinity'),
  version bigint not null default 0,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
comment on column public.paper_accounts.version is 'Grows with every change of the account, its orders or its bars.';

create table if not exists public.paper_orders (
  account text not null references public.paper_accounts,
  client_order_id text not null check (btrim(client_order_id) <> ''),
  order_number bigint generated always as identity unique,
  symbol text not null check (symbol <> '' and symbol = upper(symbol) and symbol !~ '\s'),
  side public.side not null,
  qty numeric not null check (qty > 0 and qty < 'infinity'),
  limit_price numeric check (limit_price > 0 and limit_price < 'infinity'),
  stop_loss_price numeric check (stop_loss_price > 0 and stop_loss_price < 'infinity'),
  take_profit_price numeric check (take_profit_price > 0 and take_profit_price < 'infinity'),
  expires_at timestamptz,
  placed_at timestamptz not null,
  status public.pipeline_status not null,
  reason text not null default '',
  filled_qty numeric not null default 0 check (filled_qty >= 0),
  stop_filled_qty numeric not null default 0 check (stop_filled_qty >= 0),
  target_filled_qty numeric not null default 0 check (target_filled_qty >= 0),
  stop_triggered boolean not null default false,
  exits_cancelled boolean not null default false,
  is_open boolean not null generated always as (
    status in ('submitted', 'partially_filled')
    or (stop_loss_price is not null and not exits_cancelled and filled_qty > stop_filled_qty + target_filled_qty)) stored,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (account, client_order_id),
  constraint paper_orders_bracket_has_both_exits check ((stop_loss_price is null) = (take_profit_price is null)),
  constraint paper_orders_filled_is_what_was_ordered check (filled_qty <= qty and (status = 'filled') = (filled_qty = qty)),
  constraint paper_orders_exits_cover_what_was_filled check (stop_filled_qty + target_filled_qty <= filled_qty),
  constraint paper_orders_status_is_an_orders check (status in ('submitted', 'partially_filled', 'filled', 'cancelled', 'expired', 'rejected')),
  constraint paper_orders_rejected_says_why check ((status = 'rejected') = (reason <> ''))
);
comment on table public.paper_orders is 'An order with its exits: one row, so that they can never disagree.';
create index if not exists paper_orders_open on public.paper_orders (account, order_number) where is_open;

create table if not exists public.paper_fills (
  account text not null,
  exec_id text not null check (btrim(exec_id) <> ''),
  fill_number bigint generated always as identity unique,
  client_order_id text not null,
  leg text not null check (leg in ('entry', 'stop_loss', 'take_profit')),
  symbol text not null,
  side public.side not null,
  qty numeric not null check (qty > 0 and qty < 'infinity'),
  price numeric not null check (price > 0 and price < 'infinity'),
  commission numeric not null check (commission > '-infinity' and commission < 'infinity'),
  filled_at timestamptz not null,
  created_at timestamptz not null default now(),
  primary key (account, exec_id),
  foreign key (account, client_order_id) references public.paper_orders
);
comment on column public.paper_fills.client_order_id is 'Of the order; which part of it was filled is the leg.';
create index if not exists paper_fills_order on public.paper_fills (account, client_order_id);
create index if not exists paper_fills_filled_at on public.paper_fills (account, filled_at);
drop trigger if exists refuse_change on public.paper_fills;
create trigger refuse_change before update or delete on public.paper_fills for each row execute function public.refuse_change();
drop trigger if exists refuse_truncate on public.paper_fills;
create trigger refuse_truncate before truncate on public.paper_fills for each statement execute function public.refuse_change();

create table if not exists public.paper_positions (
  account text not null references public.paper_accounts,
  symbol text not null,
  qty numeric not null check (qty <> 0 and qty > '-infinity' and qty < 'infinity'),
  avg_cost numeric not null check (avg_cost > 0 and avg_cost < 'infinity'),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (account, symbol)
);

create table if not exists public.paper_bars (
  account text not null references public.paper_accounts,
  symbol text not null,
  last_at timestamptz not null,
  close numeric not null check (close > 0 and close < 'infinity'),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (account, symbol)
);
comment on table public.paper_bars is 'The last bar of each symbol that was processed; an earlier one, or the same again, is not.';

-- Opens an account, or returns the one that is there with the money it has.
create or replace function public.open_paper_account(payload jsonb) returns setof public.paper_accounts
language plpgsql security invoker set search_path = '' as $$
begin
  insert into public.paper_accounts (account, currency, initial_cash, cash)
  values (payload ->> 'account', payload ->> 'currency', (payload ->> 'initial_cash')::numeric, (payload ->> 'initial_cash')::numeric)
  on conflict (account) do nothing;
  return query select a.* from public.paper_accounts a where a.account = payload ->> 'account';
end
$$;

-- Places an order once: the same identity again returns the order that is there. Refused where the cash that is not promised to other
-- orders does not pay it, or where it sells shares that are not free and the account may not sell short.
create or replace function public.place_paper_order(payload jsonb) returns setof public.paper_orders
language plpgsql security invoker set search_path = '' as $$
declare
  v_account public.paper_accounts;
  v_order public.paper_orders;
  v_reason text := coalesce(payload ->> 'reason', '');
  v_price numeric;
  v_free numeric;
begin
  select a.* into v_account from public.paper_accounts a where a.account = payload ->> 'account' for update;
  if not found then
    raise exception 'unknown paper account %', payload ->> 'account' using errcode = 'foreign_key_violation';
  end if;
  select o.* into v_order from public.paper_orders o
  where o.account = v_account.account and o.client_order_id = payload ->> 'client_order_id';
  if found then
    return next v_order;
    return;
  end if;
  v_order := jsonb_populate_record(null::public.paper_orders, payload - 'reason');
  if v_reason = '' and v_order.side = 'buy' then
    v_price := coalesce(v_order.limit_price, (select b.close from public.paper_bars b
      where b.account = v_account.account and b.symbol = v_order.symbol));
    select v_account.cash - coalesce(sum((o.qty - o.filled_qty) * coalesce(o.limit_price, b.close, 0)), 0) into v_free
    from public.paper_orders o left join public.paper_bars b on b.account = o.account and b.symbol = o.symbol
    where o.account = v_account.account and o.is_open and o.side = 'buy' and o.status in ('submitted', 'partially_filled');
    if v_order.qty * v_price > v_free then
      v_reason := pg_catalog.format('%s shares at %s cost more than the %s of cash that is free',
        trim_scale(v_order.qty), trim_scale(v_price), trim_scale(v_free));
    end if;
  elsif v_reason = '' and not (payload ->> 'allow_short')::boolean then
    select coalesce((select p.qty from public.paper_positions p where p.account = v_account.account and p.symbol = v_order.symbol), 0)
      - coalesce(sum(case o.side when 'sell' then o.qty - o.filled_qty else o.filled_qty - o.stop_filled_qty - o.target_filled_qty end), 0)
    into v_free
    from public.paper_orders o
    where o.account = v_account.account and o.symbol = v_order.symbol and o.is_open
      and (o.side = 'buy' and o.stop_loss_price is not null and not o.exits_cancelled
        or o.side = 'sell' and o.status in ('submitted', 'partially_filled'));
    if v_order.qty > v_free then
      v_reason := pg_catalog.format('%s shares are more than the %s that are held and not promised to other orders',
        trim_scale(v_order.qty), trim_scale(v_free));
    end if;
  end if;
  insert into public.paper_orders (account, client_order_id, symbol, side, qty, limit_price, stop_loss_price, take_profit_price,
    expires_at, placed_at, status, reason)
  values (v_account.account, v_order.client_order_id, v_order.symbol, v_order.side, v_order.qty, v_order.limit_price,
    v_order.stop_loss_price, v_order.take_profit_price, v_order.expires_at, v_order.placed_at,
    (case v_reason when '' then 'submitted' else 'rejected' end)::public.pipeline_status, v_reason)
  returning * into v_order;
  update public.paper_accounts a set version = a.version + 1 where a.account = v_account.account;
  return next v_order;
end
$$;

-- Cancels what is not filled of an order. Named by one of its exits, it loses both exits and what is not filled of its entry: exits
-- cancel each other, and nothing is bought that nothing watches over. What is done stays as it is.
create or replace function public.cancel_paper_order(payload jsonb) returns setof public.paper_orders
language plpgsql security invoker set search_path = '' as $$
declare
  v_account text := payload ->> 'account';
  v_order public.paper_orders;
begin
  perform from public.paper_accounts a where a.account = v_account for update;
  select o.* into v_order from public.paper_orders o
  where o.account = v_account and o.client_order_id = payload ->> 'client_order_id'
    and (o.stop_loss_price is not null or not (payload ->> 'exits')::boolean) for update;
  if found and v_order.is_open then
    update public.paper_orders o set
      status = case when o.status in ('submitted', 'partially_filled') then 'cancelled' else o.status end,
      exits_cancelled = o.exits_cancelled or (payload ->> 'exits')::boolean
    where o.account = v_account and o.client_order_id = v_order.client_order_id
    returning o.* into v_order;
    update public.paper_accounts a set version = a.version + 1 where a.account = v_account;
  end if;
  if v_order.account is not null then
    return next v_order;
  end if;
end
$$;

-- What a bar needs to meet: the account's version, its open orders oldest first, and the last bar of each symbol.
create or replace function public.read_paper_account(account text) returns jsonb
language sql stable security invoker set search_path = '' set timezone = 'UTC' as $$
  select jsonb_build_object(
    'version', a.version,
    'orders', coalesce((select jsonb_agg(to_jsonb(o) || jsonb_build_object('order_id', 'paper-' || o.order_number) order by o.order_number)
      from public.paper_orders o where o.account = a.account and o.is_open), '[]'),
    'bars', coalesce((select jsonb_object_agg(b.symbol, b.last_at) from public.paper_bars b where b.account = a.account), '{}'))
  from public.paper_accounts a where a.account = read_paper_account.account
$$;

-- Writes what bars did to an account, all of it or nothing, and false when the account has changed since it was read.
create or replace function public.apply_paper_bars(payload jsonb) returns boolean
language plpgsql security invoker set search_path = '' as $$
declare
  v_account text := payload ->> 'account';
  v_fill public.paper_fills;
  v_signed numeric;
  v_held public.paper_positions;
begin
  perform from public.paper_accounts a
  where a.account = v_account and a.version = (payload ->> 'version')::bigint for update;
  if not found then
    return false;
  end if;
  insert into public.paper_bars (account, symbol, last_at, close)
  select v_account, x ->> 'symbol', (x ->> 'at')::timestamptz, (x ->> 'close')::numeric
  from pg_catalog.jsonb_array_elements(payload -> 'bars') x
  on conflict (account, symbol) do update set last_at = excluded.last_at, close = excluded.close;
  update public.paper_orders o set
    status = (x ->> 'status')::public.pipeline_status, stop_triggered = (x ->> 'stop_triggered')::boolean,
    filled_qty = o.filled_qty + f.entry_qty, stop_filled_qty = o.stop_filled_qty + f.stop_qty,
    target_filled_qty = o.target_filled_qty + f.target_qty
  from pg_catalog.jsonb_array_elements(payload -> 'orders') x
  cross join lateral (
    select coalesce(sum((y ->> 'qty')::numeric) filter (where y ->> 'leg' = 'entry'), 0) as entry_qty,
      coalesce(sum((y ->> 'qty')::numeric) filter (where y ->> 'leg' = 'stop_loss'), 0) as stop_qty,
      coalesce(sum((y ->> 'qty')::numeric) filter (where y ->> 'leg' = 'take_profit'), 0) as target_qty
    from pg_catalog.jsonb_array_elements(payload -> 'fills') y where y ->> 'client_order_id' = x ->> 'client_order_id') f
  where o.account = v_account and o.client_order_id = x ->> 'client_order_id';
  for v_fill in
    select (jsonb_populate_record(null::public.paper_fills, y.fill)).*
    from pg_catalog.jsonb_array_elements(payload -> 'fills') with ordinality y (fill, place) order by y.place
  loop
    insert into public.paper_fills (account, exec_id, client_order_id, leg, symbol, side, qty, price, commission, filled_at)
    values (v_account, v_fill.exec_id, v_fill.client_order_id, v_fill.leg, v_fill.symbol, v_fill.side, v_fill.qty, v_fill.price,
      v_fill.commission, v_fill.filled_at);
    v_signed := case v_fill.side when 'buy' then v_fill.qty else -v_fill.qty end;
    update public.paper_accounts a set cash = a.cash - v_signed * v_fill.price - v_fill.commission where a.account = v_account;
    select p.* into v_held from public.paper_positions p where p.account = v_account and p.symbol = v_fill.symbol;
    if not found then
      insert into public.paper_positions (account, symbol, qty, avg_cost) values (v_account, v_fill.symbol, v_signed, v_fill.price);
    elsif v_held.qty + v_signed = 0 then
      delete from public.paper_positions p where p.account = v_account and p.symbol = v_fill.symbol;
    else
      -- What is added is averaged, what is taken away leaves the average, and what turns the position starts anew.
      update public.paper_positions p set qty = p.qty + v_signed, avg_cost = case
        when sign(p.qty) = sign(v_signed) then (p.qty * p.avg_cost + v_signed * v_fill.price) / (p.qty + v_signed)
        when sign(p.qty) = sign(p.qty + v_signed) then p.avg_cost
        else v_fill.price end
      where p.account = v_account and p.symbol = v_fill.symbol;
    end if;
  end loop;
  update public.paper_accounts a set version = a.version + 1 where a.account = v_account;
  return true;
end
$$;

do $$
declare
  v_name text;
begin
  foreach v_name in array array['paper_accounts', 'paper_orders', 'paper_fills', 'paper_positions', 'paper_bars'] loop
    execute pg_catalog.format('alter table public.%I enable row level security', v_name);
    execute pg_catalog.format('revoke all on public.%I from public, anon, authenticated', v_name);
    execute pg_catalog.format('grant all on public.%I to service_role', v_name);
  end loop;
  foreach v_name in array array['paper_accounts', 'paper_orders', 'paper_positions', 'paper_bars'] loop
    execute pg_catalog.format('drop trigger if exists set_updated_at on public.%I', v_name);
    execute pg_catalog.format('create trigger set_updated_at before update on public.%I for each row execute function public.set_updated_at()', v_name);
  end loop;
  foreach v_name in array array['public.open_paper_account(jsonb)', 'public.place_paper_order(jsonb)', 'public.cancel_paper_order(jsonb)',
    'public.read_paper_account(text)', 'public.apply_paper_bars(jsonb)'] loop
    execute pg_catalog.format('revoke execute on function %s from public, anon, authenticated', v_name);
    execute pg_catalog.format('grant execute on function %s to service_role', v_name);
  end loop;
end
$$;
