-- Exits for shares that are held already. Exists because a sale ends the exits of its position first: where the sale then fails, the
-- position gets exits again, at the paper broker as at real ones.

-- Places the exits of a bracket whose entry is taken as done, once: the same identity again returns what is there. Refused where the shares
-- are not held, or other orders are to take them.
create or replace function public.place_paper_exits(payload jsonb) returns setof public.paper_orders
language plpgsql security invoker set search_path = '' as $$
declare
  v_account public.paper_accounts;
  v_order public.paper_orders;
  v_reason text := coalesce(payload ->> 'reason', '');
  v_sign integer;
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
  v_sign := case v_order.side when 'buy' then 1 else -1 end;
  select coalesce((select v_sign * p.qty from public.paper_positions p where p.account = v_account.account and p.symbol = v_order.symbol), 0)
    - coalesce(sum(case when o.side = v_order.side then o.filled_qty - o.stop_filled_qty - o.target_filled_qty else o.qty - o.filled_qty end), 0)
  into v_free
  from public.paper_orders o
  where o.account = v_account.account and o.symbol = v_order.symbol and o.is_open
    and (o.side = v_order.side and o.stop_loss_price is not null and not o.exits_cancelled
      or o.side <> v_order.side and o.status in ('submitted', 'partially_filled'));
  if v_reason = '' and v_order.qty > v_free then
    v_reason := pg_catalog.format('%s shares are more than the %s that are held and not promised to other orders',
      trim_scale(v_order.qty), trim_scale(v_free));
  end if;
  insert into public.paper_orders (account, client_order_id, symbol, side, qty, stop_loss_price, take_profit_price, placed_at, status, reason,
    filled_qty)
  values (v_account.account, v_order.client_order_id, v_order.symbol, v_order.side, v_order.qty, v_order.stop_loss_price,
    v_order.take_profit_price, v_order.placed_at, (case v_reason when '' then 'filled' else 'rejected' end)::public.pipeline_status, v_reason,
    case v_reason when '' then v_order.qty else 0 end)
  returning * into v_order;
  update public.paper_accounts a set version = a.version + 1 where a.account = v_account.account;
  return next v_order;
end
$$;
revoke execute on function public.place_paper_exits(jsonb) from public, anon, authenticated;
grant execute on function public.place_paper_exits(jsonb) to service_role;
