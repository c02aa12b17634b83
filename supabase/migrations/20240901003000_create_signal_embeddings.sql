-- Vector memory: windows of market behaviour as 320-wide embeddings, versioned, point in time, archived rather than deleted.

do $$
begin
  if to_regtype('public.embedding_version_status') is null then
    create type public.embedding_version_status as enum ('building', 'active', 'retired');
  end if;
  if to_regtype('public.job_status') is null then
    create type public.job_status as enum ('pending', 'running', 'done', 'failed');
  end if;
end
$$;

create table if not exists public.embedding_versions (
  emb_type text not null check (emb_type <> ''),
  emb_version text not null check (emb_version <> ''),
  dataset_id uuid not null references public.datasets on delete cascade,
  encoder_sha256 text not null check (encoder_sha256 ~ '^[0-9a-f]{64}$'),
  trained_until timestamptz not null,
  status public.embedding_version_status not null default 'building',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (emb_type, emb_version),
  unique (emb_type, emb_version, dataset_id)
);
create unique index if not exists embedding_versions_one_active on public.embedding_versions (emb_type, dataset_id) where status = 'active';
create index if not exists embedding_versions_dataset_id on public.embedding_versions (dataset_id);

create table if not exists public.signal_embeddings (
  embedding_id uuid primary key default gen_random_uuid(),
  dataset_id uuid not null references public.datasets on delete cascade,
  asset_symbol text not null check (asset_symbol <> ''),
  time_range tstzrange not null check (not isempty(time_range) and not lower_inf(time_range) and not upper_inf(time_range)),
  embedding extensions.vector(320) not null check (extensions.vector_dims(embedding) = 320),
  emb_type text not null,
  emb_version text not null,
  regime_tag text not null,
  label jsonb not null default '{}',
  label_end timestamptz,
  meta jsonb not null check (meta ?& array['source', 'regime', 'window']),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  unique (asset_symbol, time_range, emb_type, emb_version),
  foreign key (emb_type, emb_version, dataset_id) references public.embedding_versions (emb_type, emb_version, dataset_id),
  check (label_end is null or label_end > upper(time_range))
);
comment on column public.signal_embeddings.time_range is 'First and last bar of the window, both included; the vector uses nothing after it.';
comment on column public.signal_embeddings.label_end is 'When the label became known; neighbours are offered only to times after it.';
create index if not exists signal_embeddings_dataset_id on public.signal_embeddings (dataset_id);
create index if not exists signal_embeddings_version on public.signal_embeddings (emb_type, emb_version, dataset_id);
create index if not exists signal_embeddings_hnsw on public.signal_embeddings
  using hnsw ((embedding::extensions.halfvec(320)) extensions.halfvec_cosine_ops);

create table if not exists public.signal_embeddings_archive (
  embedding_id uuid primary key,
  dataset_id uuid not null references public.datasets on delete cascade,
  asset_symbol text not null,
  time_range tstzrange not null,
  embedding extensions.vector(320) not null,
  emb_type text not null,
  emb_version text not null,
  regime_tag text not null,
  label jsonb not null,
  label_end timestamptz,
  meta jsonb not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  archived_at timestamptz not null default now(),
  archive_reason text not null
);
create index if not exists signal_embeddings_archive_dataset_id on public.signal_embeddings_archive (dataset_id);

create table if not exists public.embedding_jobs (
  job_id uuid primary key default gen_random_uuid(),
  dataset_id uuid not null references public.datasets on delete cascade,
  asset_symbol text,
  windows jsonb not null,
  metadata jsonb not null default '{}',
  status public.job_status not null default 'pending',
  attempts integer not null default 0,
  error text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
create index if not exists embedding_jobs_open on public.embedding_jobs (created_at) where status = 'pending';
create index if not exists embedding_jobs_dataset_id on public.embedding_jobs (dataset_id);

do $$
declare
  v_table text;
begin
  foreach v_table in array array['embedding_versions', 'signal_embeddings', 'embedding_jobs'] loop
    execute pg_catalog.format('drop trigger if exists set_updated_at on public.%I', v_table);
    execute pg_catalog.format('create trigger set_updated_at before update on public.%I for each row execute function public.set_updated_at()', v_table);
  end loop;
  foreach v_table in array array['embedding_versions', 'signal_embeddings', 'signal_embeddings_archive', 'embedding_jobs'] loop
    execute pg_catalog.format('alter table public.%I enable row level security', v_table);
    execute pg_catalog.format('revoke all on public.%I from public, anon, authenticated', v_table);
    execute pg_catalog.format('grant all on public.%I to service_role', v_table);
  end loop;
end
$$;
grant select, insert, update on public.embedding_versions, public.signal_embeddings, public.embedding_jobs to researcher;
grant select on public.signal_embeddings_archive to researcher;

drop policy if exists researcher_keeps on public.embedding_versions;
create policy researcher_keeps on public.embedding_versions for all to researcher using (true) with check (
  trained_until < (select d.sealed_from from public.datasets d where d.dataset_id = embedding_versions.dataset_id));
drop policy if exists researcher_keeps_before_the_seal on public.signal_embeddings;
create policy researcher_keeps_before_the_seal on public.signal_embeddings for all to researcher
  using (upper(time_range) < (select d.sealed_from from public.datasets d where d.dataset_id = signal_embeddings.dataset_id)
    and (label_end is null or label_end < (select d.sealed_from from public.datasets d where d.dataset_id = signal_embeddings.dataset_id)))
  with check (upper(time_range) < (select d.sealed_from from public.datasets d where d.dataset_id = signal_embeddings.dataset_id)
    and (label_end is null or label_end < (select d.sealed_from from public.datasets d where d.dataset_id = signal_embeddings.dataset_id)));
drop policy if exists researcher_reads_before_the_seal on public.signal_embeddings_archive;
create policy researcher_reads_before_the_seal on public.signal_embeddings_archive for select to researcher
  using (coalesce(label_end, upper(time_range)) < (select d.sealed_from from public.datasets d where d.dataset_id = signal_embeddings_archive.dataset_id));
drop policy if exists researcher_keeps on public.embedding_jobs;
create policy researcher_keeps on public.embedding_jobs for all to researcher using (true) with check (true);

-- Nearest windows of the active version whose label had ended before `as_of`. The filter names the data set and may narrow by
-- regime_tag or asset_symbol; without a data set there must be exactly one active version of the type.
create or replace function public.match_signal_embeddings(
  query_embedding extensions.vector(320), match_count integer, as_of timestamptz, emb_type text, filter jsonb default '{}')
returns table (embedding_id uuid, asset_symbol text, window_start timestamptz, window_end timestamptz, regime_tag text, label jsonb,
  label_end timestamptz, meta jsonb, distance float8)
language plpgsql stable security invoker set search_path = '' as $$
declare
  v_version public.embedding_versions;
  v_active integer;
begin
  if as_of is null or match_count is null or match_count < 1 or match_count > 1000 then
    raise exception 'as_of is needed and match_count must be in 1..1000' using errcode = 'invalid_parameter_value';
  end if;
  select count(*) into v_active from public.embedding_versions v
  where v.emb_type = match_signal_embeddings.emb_type and v.status = 'active'
    and (filter ->> 'dataset_id' is null or v.dataset_id = (filter ->> 'dataset_id')::uuid);
  if v_active <> 1 then
    raise exception '% active versions of %: name the data set in the filter, or build a version first', v_active, emb_type
      using errcode = 'invalid_parameter_value';
  end if;
  select v.* into v_version from public.embedding_versions v
  where v.emb_type = match_signal_embeddings.emb_type and v.status = 'active'
    and (filter ->> 'dataset_id' is null or v.dataset_id = (filter ->> 'dataset_id')::uuid);
  -- The index holds all versions: go on past those that do not count until there are enough, however many there are.
  perform pg_catalog.set_config('hnsw.iterative_scan', 'strict_order', true);
  perform pg_catalog.set_config('hnsw.max_scan_tuples', '2147483647', true);
  perform pg_catalog.set_config('hnsw.scan_mem_multiplier', '100', true);
  return query
    select e.embedding_id, e.asset_symbol, lower(e.time_range), upper(e.time_range), e.regime_tag, e.label, e.label_end, e.meta,
      (e.embedding::extensions.halfvec(320) operator(extensions.<=>) query_embedding::extensions.halfvec(320))::float8
    from public.signal_embeddings e
    where e.emb_type = v_version.emb_type and e.emb_version = v_version.emb_version
      and e.label_end < as_of
      and (filter ->> 'regime_tag' is null or e.regime_tag = filter ->> 'regime_tag')
      and (filter ->> 'asset_symbol' is null or e.asset_symbol = filter ->> 'asset_symbol')
    order by e.embedding::extensions.halfvec(320) operator(extensions.<=>) query_embedding::extensions.halfvec(320)
    limit match_count;
end
$$;

-- How alike a set of windows is, how far from the rest, and what followed them on average with its t-statistic.
create or replace function public.score_signal_cluster(ids uuid[])
returns table (n bigint, cohesion float8, separation float8, mean_label float8, label_t_stat float8)
language sql stable security invoker set search_path = '' as $$
  with members as (
    select e.*, (e.label ->> 'forward_return')::float8 as outcome from public.signal_embeddings e where e.embedding_id = any (ids)
  ), centre as (
    select extensions.avg(m.embedding) as v from members m
  ), others as (
    select e.embedding from public.signal_embeddings e
    where (e.emb_type, e.emb_version) in (select m.emb_type, m.emb_version from members m) and not e.embedding_id = any (ids)
  )
  select count(*),
    avg(1 - (m.embedding operator(extensions.<=>) c.v)),
    avg(1 - (m.embedding operator(extensions.<=>) c.v))
      - (select avg(1 - (o.embedding operator(extensions.<=>) c2.v)) from others o cross join centre c2),
    avg(m.outcome),
    avg(m.outcome) / nullif(stddev_samp(m.outcome) / sqrt(count(m.outcome)), 0)
  from members m cross join centre c
$$;

create or replace function public.rpc_refresh_embeddings(payload jsonb) returns uuid
language plpgsql security invoker set search_path = '' as $$
declare
  v_job_id uuid;
begin
  insert into public.embedding_jobs (dataset_id, asset_symbol, windows, metadata)
  values ((payload ->> 'dataset_id')::uuid, payload ->> 'asset_symbol', payload -> 'windows', coalesce(payload -> 'metadata', '{}'))
  returning job_id into v_job_id;
  return v_job_id;
end
$$;

-- Hands out open jobs, each to one worker; a job whose worker vanished comes back after 15 minutes, at most five times.
create or replace function public.claim_embedding_jobs(n integer default 1) returns setof public.embedding_jobs
language sql volatile security invoker set search_path = '' as $$
  with open as materialized (
    select c.job_id from public.embedding_jobs c
    where (c.status = 'pending' or (c.status = 'running' and c.updated_at < now() - interval '15 minutes')) and c.attempts < 5
    order by c.created_at limit n for update skip locked
  )
  update public.embedding_jobs j set status = 'running', attempts = j.attempts + 1 from open where j.job_id = open.job_id
  returning j.*
$$;

-- Archives windows that are old and weak, or of assets outside the universe; the last `regime_diversity` windows of a regime stay,
-- those of the universe, strong and new before others.
-- Age counts back from the newest window of the same version; weak means a label whose t-statistic is below min_t_stat in size.
create or replace function public.rpc_prune_vectors(
  max_age_days integer, min_t_stat float8, regime_diversity integer default 25, asset_universe text[] default null,
  dry_run boolean default true, p_dataset_id uuid default null)
returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_result jsonb;
begin
  if (max_age_days >= 0 and min_t_stat >= 0 and min_t_stat < 'infinity' and regime_diversity >= 1 and dry_run is not null) is not true then
    raise exception 'max_age_days must be at least 0, min_t_stat finite and at least 0, regime_diversity at least 1, dry_run true or false' using errcode = 'invalid_parameter_value';
  end if;
  with judged as (
    select e.embedding_id, e.regime_tag, e.emb_type, e.emb_version,
      asset_universe is not null and not e.asset_symbol = any (asset_universe) as outside,
      upper(e.time_range) < max(upper(e.time_range)) over v - pg_catalog.make_interval(days => max_age_days) as old,
      abs(coalesce((e.label ->> 't_stat')::float8, 0)) < min_t_stat as weak,
      row_number() over (partition by e.emb_type, e.emb_version, e.regime_tag
        order by asset_universe is not null and not e.asset_symbol = any (asset_universe),
          abs(coalesce((e.label ->> 't_stat')::float8, 0)) desc, e.time_range desc, e.asset_symbol) as rank_in_regime
    from public.signal_embeddings e
    where p_dataset_id is null or e.dataset_id = p_dataset_id
    window v as (partition by e.emb_type, e.emb_version)
  ), leaving as (
    select j.embedding_id, case when j.outside then 'outside_universe' else 'old_and_weak' end as reason
    from judged j
    where j.rank_in_regime > regime_diversity and (j.outside or (j.old and j.weak))
  ), removed as (
    delete from public.signal_embeddings e using leaving l
    where not dry_run and e.embedding_id = l.embedding_id
    returning e.*, l.reason
  ), archived as (
    insert into public.signal_embeddings_archive (embedding_id, dataset_id, asset_symbol, time_range, embedding, emb_type, emb_version,
      regime_tag, label, label_end, meta, created_at, updated_at, archive_reason)
    select r.embedding_id, r.dataset_id, r.asset_symbol, r.time_range, r.embedding, r.emb_type, r.emb_version, r.regime_tag, r.label,
      r.label_end, r.meta, r.created_at, r.updated_at, r.reason from removed r
    returning 1
  )
  select pg_catalog.jsonb_build_object(
    'dry_run', dry_run,
    'examined', (select count(*) from judged),
    'selected', (select count(*) from leaving),
    'archived', (select count(*) from archived),
    'reasons', coalesce((select pg_catalog.jsonb_object_agg(x.reason, x.n) from (select l.reason, count(*) as n from leaving l group by l.reason) x), '{}')
  ) into v_result;
  return v_result;
end
$$;

create or replace function public.restore_vectors(ids uuid[]) returns integer
language plpgsql security invoker set search_path = '' as $$
declare
  v_count integer;
begin
  with back as (delete from public.signal_embeddings_archive a where a.embedding_id = any (ids) returning a.*)
  insert into public.signal_embeddings (embedding_id, dataset_id, asset_symbol, time_range, embedding, emb_type, emb_version, regime_tag,
    label, label_end, meta, created_at, updated_at)
  select b.embedding_id, b.dataset_id, b.asset_symbol, b.time_range, b.embedding, b.emb_type, b.emb_version, b.regime_tag, b.label,
    b.label_end, b.meta, b.created_at, b.updated_at from back b;
  get diagnostics v_count = row_count;
  return v_count;
end
$$;

-- Makes a version the active one of its data set, and retires the one before, in one transaction.
create or replace function public.activate_embedding_version(p_emb_type text, p_emb_version text) returns void
language plpgsql security invoker set search_path = '' as $$
begin
  update public.embedding_versions v set status = 'retired'
  where v.emb_type = p_emb_type and v.status = 'active' and v.emb_version <> p_emb_version
    and v.dataset_id = (select t.dataset_id from public.embedding_versions t where t.emb_type = p_emb_type and t.emb_version = p_emb_version);
  update public.embedding_versions v set status = 'active' where v.emb_type = p_emb_type and v.emb_version = p_emb_version;
  if not found then
    raise exception 'unknown embedding version % of %', p_emb_version, p_emb_type using errcode = 'no_data_found';
  end if;
end
$$;

do $$
declare
  v_function regprocedure;
begin
  for v_function in
    select p.oid::regprocedure from pg_catalog.pg_proc p
    where p.pronamespace = 'public'::regnamespace and p.proname in ('match_signal_embeddings', 'score_signal_cluster', 'rpc_refresh_embeddings',
      'claim_embedding_jobs', 'rpc_prune_vectors', 'restore_vectors', 'activate_embedding_version')
  loop
    execute pg_catalog.format('revoke execute on function %s from public, anon, authenticated', v_function);
    execute pg_catalog.format('grant execute on function %s to service_role', v_function);
    if v_function::text not like '%restore_vectors%' then
      execute pg_catalog.format('grant execute on function %s to researcher', v_function);
    end if;
  end loop;
end
$$;

-- Windows of the active version of each data set, and where the newest ends.
create or replace view public.embedding_counts with (security_invoker = true) as
  select v.dataset_id, v.emb_type, v.emb_version, count(e.embedding_id) as n_windows, max(upper(e.time_range)) as newest
  from public.embedding_versions v left join public.signal_embeddings e using (emb_type, emb_version)
  where v.status = 'active' group by v.dataset_id, v.emb_type, v.emb_version;
revoke all on public.embedding_counts from public, anon, authenticated;
grant select on public.embedding_counts to service_role, researcher;
