-- A job of a worker that died is done by another soon, and one of a worker that is merely slow is not: a claim is a lease that its
-- holder renews. And a version of the vector memory says how many windows it will have, so that searches cannot be switched to a part of it.

alter table public.embedding_jobs add column if not exists claimed_by text;
alter table public.embedding_jobs add column if not exists lease_until timestamptz;
alter table public.embedding_jobs add column if not exists result jsonb;
comment on column public.embedding_jobs.lease_until is 'Until when the job is its worker''s; a running job past it is handed out again.';
alter table public.embedding_versions add column if not exists settings jsonb not null default '{}';
alter table public.embedding_versions add column if not exists n_windows integer;
comment on column public.embedding_versions.n_windows is 'How many windows the version has when it is complete, archived ones included; null where nobody said.';

do $$
begin
  alter table public.embedding_jobs drop constraint if exists embedding_jobs_result_fits;
  alter table public.embedding_jobs add constraint embedding_jobs_result_fits check (octet_length(result::text) <= 1048576);
  alter table public.embedding_versions drop constraint if exists embedding_versions_settings_fits;
  alter table public.embedding_versions add constraint embedding_versions_settings_fits check (octet_length(settings::text) <= 1048576);
  alter table public.embedding_versions drop constraint if exists embedding_versions_n_windows_positive;
  alter table public.embedding_versions add constraint embedding_versions_n_windows_positive check (n_windows > 0);
end
$$;

-- Open are jobs that nobody has, and running ones whose lease has run out.
drop index if exists public.embedding_jobs_open;
create index embedding_jobs_open on public.embedding_jobs (created_at) where status in ('pending', 'running');

-- Hands out open jobs, each to one worker for `lease_seconds`, oldest first; with `wanted`, that one alone, also to the worker who has it
-- by name and began anew. A job that was handed out five times is not handed out again but fails, and says so.
drop function if exists public.claim_embedding_jobs(integer);
create or replace function public.claim_embedding_jobs(
  n integer default 1, worker text default null, wanted uuid default null, lease_seconds integer default 120)
returns setof public.embedding_jobs
language sql volatile security invoker set search_path = '' as $$
  with lost as materialized (
    select c.job_id from public.embedding_jobs c
    where c.status = 'running' and (c.lease_until is null or c.lease_until < now()) and c.attempts >= 5
      and (wanted is null or c.job_id = wanted)
    for update skip locked
  )
  update public.embedding_jobs j set status = 'failed', lease_until = null,
    error = pg_catalog.format('its workers vanished %s times, the last was %s', j.attempts, coalesce(j.claimed_by, 'one without a name'))
  from lost where j.job_id = lost.job_id;
  with open as materialized (
    select c.job_id from public.embedding_jobs c
    where (c.status = 'pending'
        or (c.status = 'running' and (c.lease_until is null or c.lease_until < now() or (wanted is not null and c.claimed_by = worker))))
      and c.attempts < 5 and (wanted is null or c.job_id = wanted)
    order by c.created_at limit n for update skip locked
  )
  update public.embedding_jobs j set status = 'running', attempts = j.attempts + 1, claimed_by = worker,
    lease_until = now() + pg_catalog.make_interval(secs => lease_seconds)
  from open where j.job_id = open.job_id
  returning j.*
$$;

-- Keeps a job for longer; false when it is no longer its worker's, because the lease had run out and another took it. The number of
-- attempts tells one claim from the next.
create or replace function public.renew_embedding_job(p_job_id uuid, p_attempts integer, lease_seconds integer default 120) returns boolean
language plpgsql volatile security invoker set search_path = '' as $$
begin
  update public.embedding_jobs j set lease_until = now() + pg_catalog.make_interval(secs => lease_seconds)
  where j.job_id = p_job_id and j.attempts = p_attempts and j.status = 'running';
  return found;
end
$$;

-- With an id of its own in the payload a request is the same request, however often it is made.
create or replace function public.rpc_refresh_embeddings(payload jsonb) returns uuid
language plpgsql security invoker set search_path = '' as $$
declare
  v_job_id uuid := coalesce((payload ->> 'job_id')::uuid, gen_random_uuid());
begin
  insert into public.embedding_jobs (job_id, dataset_id, asset_symbol, windows, metadata)
  values (v_job_id, (payload ->> 'dataset_id')::uuid, payload ->> 'asset_symbol', payload -> 'windows', coalesce(payload -> 'metadata', '{}'))
  on conflict (job_id) do nothing;
  return v_job_id;
end
$$;

-- Makes a version the active one of its data set, and retires the one before, in one transaction; one that lacks windows is refused.
create or replace function public.activate_embedding_version(p_emb_type text, p_emb_version text) returns void
language plpgsql security invoker set search_path = '' as $$
declare
  v_version public.embedding_versions;
  v_stored bigint;
begin
  select v.* into v_version from public.embedding_versions v where v.emb_type = p_emb_type and v.emb_version = p_emb_version;
  if not found then
    raise exception 'unknown embedding version % of %', p_emb_version, p_emb_type using errcode = 'no_data_found';
  end if;
  -- Two switches at once follow each other.
  perform from public.embedding_versions v where v.emb_type = p_emb_type and v.dataset_id = v_version.dataset_id
  order by v.emb_version for update;
  if v_version.n_windows is not null then
    select (select count(*) from public.signal_embeddings e where e.emb_type = p_emb_type and e.emb_version = p_emb_version)
      + (select count(*) from public.signal_embeddings_archive a where a.emb_type = p_emb_type and a.emb_version = p_emb_version)
    into v_stored;
    if v_stored < v_version.n_windows then
      raise exception 'version % of % is still building: % of its % windows are there; refresh it to the end first',
        p_emb_version, p_emb_type, v_stored, v_version.n_windows using errcode = 'restrict_violation';
    end if;
  end if;
  update public.embedding_versions v set status = 'retired'
  where v.emb_type = p_emb_type and v.dataset_id = v_version.dataset_id and v.status = 'active' and v.emb_version <> p_emb_version;
  update public.embedding_versions v set status = 'active'
  where v.emb_type = p_emb_type and v.emb_version = p_emb_version and v.status <> 'active';
end
$$;

do $$
declare
  v_function regprocedure;
begin
  for v_function in
    select p.oid::regprocedure from pg_catalog.pg_proc p
    where p.pronamespace = 'public'::regnamespace and p.proname in ('claim_embedding_jobs', 'renew_embedding_job')
  loop
    execute pg_catalog.format('revoke execute on function %s from public, anon, authenticated', v_function);
    execute pg_catalog.format('grant execute on function %s to service_role, researcher', v_function);
  end loop;
end
$$;
