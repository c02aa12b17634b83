-- Stores events of the world once, whoever fetches them again. Exists because a row that is there must keep the time at which it became
-- known, which an upsert would replace.

-- Takes {"events": [...]} and returns how many were new. An event is its kind and its payload; the same with another symbol or time is
-- a conflict and refuses them all.
create or replace function public.save_events(payload jsonb) returns integer
language plpgsql security invoker set search_path = '' as $$
declare
  v_count integer;
  v_other text;
begin
  -- In one order, so that two who store the same events do not wait for one another.
  insert into public.events (kind, symbol, occurred_at, known_at, payload, source_url, payload_sha256)
  select x.kind, x.symbol, x.occurred_at, x.known_at, x.payload, x.source_url, x.payload_sha256
  from pg_catalog.jsonb_to_recordset(payload -> 'events')
    as x (kind text, symbol text, occurred_at timestamptz, known_at timestamptz, payload jsonb, source_url text, payload_sha256 text)
  order by x.kind, x.payload_sha256, x.known_at
  on conflict (kind, payload_sha256) do nothing;
  get diagnostics v_count = row_count;
  select pg_catalog.format('an event of kind %s and payload_sha256 %s is there with symbol %s and occurred_at %s, was %s and %s: '
      'put into the payload what tells the two apart', e.kind, e.payload_sha256, e.symbol, e.occurred_at, x.symbol, x.occurred_at)
  into v_other
  from pg_catalog.jsonb_to_recordset(payload -> 'events') as x (kind text, symbol text, occurred_at timestamptz, payload_sha256 text)
  join public.events e on e.kind = x.kind and e.payload_sha256 = x.payload_sha256
  where e.symbol is distinct from x.symbol or e.occurred_at <> x.occurred_at
  limit 1;
  if v_other is not null then
    raise exception '%', v_other using errcode = 'unique_violation';
  end if;
  return v_count;
end
$$;
revoke execute on function public.save_events(jsonb) from public, anon, authenticated;
grant execute on function public.save_events(jsonb) to service_role;
