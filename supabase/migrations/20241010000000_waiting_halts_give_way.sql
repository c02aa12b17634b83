-- A halt that only waits for an answer of the broker is lifted by whoever gets the answer. Exists because such a halt kept out one that is
-- meant to stay, an operator's or that of shares which differ, and took it along when it was lifted.

create or replace function public.halt_trading(p_scope text, p_reason text, p_actor text, p_at timestamptz) returns boolean
language plpgsql security invoker set search_path = '' as $$
declare
  v_waiting constant text[] := array['ares', 'exits'];
begin
  insert into public.trading_halts as h (scope, reason, actor, halted_at) values (p_scope, p_reason, p_actor, p_at)
  on conflict (scope) do update set reason = excluded.reason, actor = excluded.actor, halted_at = excluded.halted_at, resumed_at = null
  where h.resumed_at is not null or (h.actor = any(v_waiting) and excluded.actor <> all(v_waiting));
  if not found then
    return false;
  end if;
  insert into public.audit_log (event_type, actor, subject, payload)
  values ('trading.halted', p_actor, p_scope, pg_catalog.jsonb_build_object('reason', p_reason, 'at', p_at));
  return true;
end
$$;
