-- What happened around the research: events with the time they became known, calls to models for replay, drift, provenance, and how
-- strategies do when they are live. Exists so that a run can be repeated and its inputs be traced.

create table if not exists public.events (
  event_id uuid primary key default gen_random_uuid(),
  kind text not null check (btrim(kind) <> ''),
  symbol text check (symbol <> ''),
  occurred_at timestamptz not null,
  known_at timestamptz not null,
  payload jsonb not null check (octet_length(payload::text) <= 1048576),
  source_url text,
  payload_sha256 text not null check (payload_sha256 ~ '^[0-9a-f]{64}$'),
  created_at timestamptz not null default now(),
  unique (kind, payload_sha256)
);
comment on column public.events.known_at is 'When it could be read; nothing may use it before. A scheduled event is known before it occurs.';
create index if not exists events_symbol on public.events (symbol, known_at);

create table if not exists public.llm_calls (
  call_id uuid primary key default gen_random_uuid(),
  run_id uuid references public.research_runs,
  request_sha256 text not null check (request_sha256 ~ '^[0-9a-f]{64}$'),
  ordinal integer not null default 0 check (ordinal >= 0),
  request text not null,
  response text not null,
  model text not null check (model <> ''),
  tokens integer not null check (tokens >= 0),
  created_at timestamptz not null default now(),
  unique nulls not distinct (run_id, request_sha256, ordinal)
);
comment on table public.llm_calls is 'Request and response as text, because a replay returns them bit for bit and jsonb keeps neither order nor spaces.';
comment on column public.llm_calls.ordinal is 'Which asking of the same request in the run this was.';

create table if not exists public.drift_events (
  drift_id uuid primary key default gen_random_uuid(),
  metric text not null check (metric <> ''),
  trigger_type text not null check (trigger_type <> ''),
  triggered_at timestamptz not null default now(),
  details jsonb not null default '{}' check (octet_length(details::text) <= 1048576),
  created_at timestamptz not null default now()
);

create table if not exists public.provenance_events (
  provenance_id uuid primary key default gen_random_uuid(),
  source text not null check (source <> ''),
  source_url text,
  payload jsonb not null default '{}' check (octet_length(payload::text) <= 1048576),
  artifact_sha256 text check (artifact_sha256 ~ '^[0-9a-f]{64}$'),
  parser_version text not null,
  created_at timestamptz not null default now()
);
create index if not exists provenance_events_artifact on public.provenance_events (artifact_sha256);

create table if not exists public.live_performance (
  strategy_id text not null check (strategy_id <> ''),
  ts timestamptz not null,
  expected_return float8 not null check (expected_return > '-infinity' and expected_return < 'infinity'),
  realised_return float8 not null check (realised_return >= -1 and realised_return < 'infinity'),
  details jsonb not null default '{}' check (octet_length(details::text) <= 1048576),
  created_at timestamptz not null default now(),
  primary key (strategy_id, ts)
);

-- Writes labels of one name to a data set and returns how many; those that are there are replaced. A symbol that is not in the data set
-- refuses them all.
create or replace function public.attach_labels(payload jsonb) returns integer
language plpgsql security invoker set search_path = '' as $$
declare
  v_dataset public.datasets;
  v_foreign text;
  v_count integer;
begin
  select d.* into v_dataset from public.datasets d where d.dataset_id = (payload ->> 'dataset_id')::uuid;
  if not found then
    raise exception 'unknown dataset_id %', payload ->> 'dataset_id' using errcode = 'foreign_key_violation';
  end if;
  if (btrim(payload ->> 'name') <> '' and pg_catalog.jsonb_typeof(payload -> 'labels') = 'array') is not true then
    raise exception 'name must be given, and labels be a list of symbol, ts, horizon_end, value' using errcode = 'invalid_parameter_value';
  end if;
  select min(x ->> 'symbol') into v_foreign from pg_catalog.jsonb_array_elements(payload -> 'labels') x
  where not x ->> 'symbol' = any (v_dataset.symbols);
  if v_foreign is not null then
    raise exception 'symbol % is not in data set %', v_foreign, v_dataset.name using errcode = 'foreign_key_violation';
  end if;
  insert into public.labels (dataset_id, symbol, ts, name, horizon_end, value)
  select v_dataset.dataset_id, x ->> 'symbol', (x ->> 'ts')::timestamptz, payload ->> 'name', (x ->> 'horizon_end')::timestamptz, (x ->> 'value')::float8
  from pg_catalog.jsonb_array_elements(payload -> 'labels') x
  on conflict (dataset_id, symbol, ts, name) do update set horizon_end = excluded.horizon_end, value = excluded.value;
  get diagnostics v_count = row_count;
  return v_count;
end
$$;
revoke execute on function public.attach_labels(jsonb) from public, anon, authenticated;
grant execute on function public.attach_labels(jsonb) to service_role;

do $$
declare
  v_table text;
begin
  foreach v_table in array array['events', 'llm_calls', 'drift_events', 'provenance_events', 'live_performance'] loop
    execute pg_catalog.format('alter table public.%I enable row level security', v_table);
    execute pg_catalog.format('revoke all on public.%I from public, anon, authenticated', v_table);
    execute pg_catalog.format('grant all on public.%I to service_role', v_table);
  end loop;
end
$$;

-- An event belongs to no data set, so that the earliest seal of all holds for it.
grant select on public.events to researcher;
drop policy if exists researcher_reads_before_every_seal on public.events;
create policy researcher_reads_before_every_seal on public.events for select to researcher
  using (known_at < (select min(d.sealed_from) from public.datasets d));
