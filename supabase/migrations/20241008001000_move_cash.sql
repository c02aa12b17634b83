-- Money that came or went other than by a fill, and what becomes of the milestones by it, in one transaction. Exists because a crash between
-- the two left a deposit that counted as profit, of which the vault took its share.

create or replace function public.move_cash(payload jsonb) returns void
language plpgsql security invoker set search_path = '' as $$
begin
  insert into public.cash_movements (movement_ref, amount, moved_at, note)
  values (payload ->> 'movement_ref', (payload ->> 'amount')::numeric, (payload ->> 'moved_at')::timestamptz, payload ->> 'note');
  if jsonb_typeof(payload -> 'milestones') = 'object' then
    perform public.record_milestones(payload -> 'milestones');
  end if;
end
$$;
revoke execute on function public.move_cash(jsonb) from public, anon, authenticated;
grant execute on function public.move_cash(jsonb) to service_role;
