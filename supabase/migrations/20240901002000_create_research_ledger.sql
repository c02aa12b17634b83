-- The research ledger: runs, tool calls, features, the append-only chain of trials, and the hold-out that opens once.

do $$
begin
  if to_regtype('public.feature_status') is null then
    create type public.feature_status as enum ('proposed', 'tested', 'promoted', 'rejected', 'retired');
  end if;
  if to_regtype('public.feature_kind') is null then
    create type public.feature_kind as enum ('expression', 'plugin');
  end if;
  if to_regtype('public.run_status') is null then
    create type public.run_status as enum ('running', 'finished', 'failed');
  end if;
end
$$;

create table if not exists public.research_runs (
  run_id uuid primary key default gen_random_uuid(),
  request jsonb not null,
  dataset_id uuid not null references public.datasets,
  lineage text not null check (lineage <> ''),
  thread_id text not null unique,
  planner text not null,
  status public.run_status not null default 'running',
  budget jsonb not null,
  usage jsonb not null default '{}',
  code_version text not null,
  error text,
  started_at timestamptz not null default now(),
  finished_at timestamptz,
  report jsonb,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
create index if not exists research_runs_dataset_id on public.research_runs (dataset_id);

create table if not exists public.tool_calls (
  run_id uuid not null references public.research_runs,
  tool_call_id text not null,
  step integer not null check (step >= 0),
  tool text not null,
  arguments jsonb not null,
  result jsonb,
  error text,
  started_at timestamptz not null default now(),
  seconds float8,
  created_at timestamptz not null default now(),
  primary key (run_id, tool_call_id)
);

create table if not exists public.agent_state (
  agent_id text primary key,
  state jsonb not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

create table if not exists public.feature_registry (
  feature_id uuid primary key default gen_random_uuid(),
  name text not null check (name <> ''),
  version integer not null default 1 check (version > 0),
  kind public.feature_kind not null default 'expression',
  expression text not null,
  expression_sha256 text not null unique check (expression_sha256 ~ '^[0-9a-f]{64}$'),
  lookback integer not null check (lookback >= 0),
  family text not null default '',
  hypothesis text not null default '',
  status public.feature_status not null default 'proposed',
  reason text,
  parents uuid[] not null default '{}',
  run_id uuid references public.research_runs,
  meta jsonb not null default '{}',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  unique (name, version)
);
create index if not exists feature_registry_run_id on public.feature_registry (run_id);

create table if not exists public.trials (
  trial_id bigint primary key check (trial_id > 0),
  run_id uuid not null references public.research_runs,
  lineage text not null check (lineage <> ''),
  dataset_id uuid not null references public.datasets,
  feature_id uuid not null references public.feature_registry,
  config jsonb not null,
  config_sha256 text not null check (config_sha256 ~ '^[0-9a-f]{64}$'),
  n_obs integer not null check (n_obs > 0),
  sharpe float8 not null check (sharpe > '-infinity' and sharpe < 'infinity'),
  skew float8 not null check (skew > '-infinity' and skew < 'infinity'),
  kurtosis float8 not null check (kurtosis > '-infinity' and kurtosis < 'infinity'),
  returns_uri text not null,
  metrics_sha256 text not null,
  behaviour extensions.vector(320),
  opens_cluster boolean not null,
  prev_hash text not null,
  row_hash text not null unique,
  created_at timestamptz not null default now(),
  unique (run_id, config_sha256)
);
comment on column public.trials.sharpe is 'Out-of-sample net Sharpe ratio per period, not annualised.';
comment on column public.trials.behaviour is 'Centred, normalised gross out-of-sample returns in 320 equal spans: cosine is correlation.';
comment on column public.trials.opens_cluster is 'No earlier cluster of trials on this data correlates with it by 0.5 or more.';
create index if not exists trials_dataset_id on public.trials (dataset_id);
create index if not exists trials_lineage on public.trials (lineage);
create index if not exists trials_feature_id on public.trials (feature_id);

create table if not exists public.backtest_results (
  backtest_id uuid primary key default gen_random_uuid(),
  strategy_id text not null,
  feature_id uuid not null references public.feature_registry,
  dataset_id uuid not null references public.datasets,
  trial_id bigint not null unique references public.trials,
  run_at timestamptz not null default now(),
  config jsonb not null,
  metrics jsonb not null,
  artifacts jsonb not null default '{}',
  created_at timestamptz not null default now()
);
create index if not exists backtest_results_feature_id on public.backtest_results (feature_id);
create index if not exists backtest_results_dataset_id on public.backtest_results (dataset_id);

create table if not exists public.holdout_openings (
  lineage text primary key,
  dataset_id uuid not null references public.datasets,
  run_id uuid not null references public.research_runs,
  opening_number integer not null,
  candidates jsonb not null,
  opened_at timestamptz not null default now(),
  metrics jsonb,
  created_at timestamptz not null default now()
);
create index if not exists holdout_openings_dataset_id on public.holdout_openings (dataset_id);
create index if not exists holdout_openings_run_id on public.holdout_openings (run_id);

-- A trial carries the hash of its metrics, so that the chain covers them too.
create or replace function public.jsonb_sha256(p_value jsonb) returns text
language sql immutable set search_path = '' as $$
  select encode(sha256(convert_to(p_value::text, 'UTF8')), 'hex')
$$;
revoke execute on function public.jsonb_sha256(jsonb) from public, anon, authenticated;
grant execute on function public.jsonb_sha256(jsonb) to service_role, researcher;

-- What a trial's hash covers: every column but the hash itself, as canonical jsonb text.
create or replace function public.trial_row_hash(t public.trials) returns text
language sql stable set search_path = '' set extra_float_digits = 1 as $$
  select encode(sha256(convert_to(t.prev_hash || '|' || jsonb_build_object(
    'trial_id', t.trial_id, 'run_id', t.run_id, 'lineage', t.lineage, 'dataset_id', t.dataset_id, 'feature_id', t.feature_id,
    'config', t.config, 'config_sha256', t.config_sha256, 'n_obs', t.n_obs, 'sharpe', t.sharpe, 'skew', t.skew,
    'kurtosis', t.kurtosis, 'returns_uri', t.returns_uri, 'metrics_sha256', t.metrics_sha256, 'behaviour', t.behaviour::text, 'opens_cluster', t.opens_cluster,
    'created_at', (extract(epoch from t.created_at) * 1000000)::int8
  )::text, 'UTF8')), 'hex')
$$;
revoke execute on function public.trial_row_hash(public.trials) from public, anon, authenticated;
grant execute on function public.trial_row_hash(public.trials) to service_role, researcher;

-- Numbers trials without gaps, chains their hashes and says whether a trial is a new idea or a variant of an earlier one.
-- Trials on a family of data sets share their clusters. One writer at a time, until its transaction ends.
create or replace function public.chain_trial() returns trigger
language plpgsql set search_path = '' as $$
begin
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('public.trials'));
  select coalesce(max(t.trial_id), 0) + 1 into new.trial_id from public.trials t;
  select t.row_hash into new.prev_hash from public.trials t where t.trial_id = new.trial_id - 1;
  new.prev_hash := coalesce(new.prev_hash, pg_catalog.repeat('0', 64));
  new.created_at := pg_catalog.clock_timestamp();
  new.opens_cluster := new.behaviour is null or not exists (
    select from public.trials t
    join public.datasets theirs on theirs.dataset_id = t.dataset_id
    join public.datasets ours on ours.dataset_id = new.dataset_id and ours.family_id = theirs.family_id
    where t.opens_cluster and 1 - nullif(t.behaviour operator(extensions.<=>) new.behaviour, 'nan') >= 0.5
  );
  if exists (
    select from public.trials t
    join public.datasets theirs on theirs.dataset_id = t.dataset_id
    join public.datasets ours on ours.dataset_id = new.dataset_id and ours.family_id = theirs.family_id
    where t.config_sha256 = new.config_sha256
  ) then
    new.opens_cluster := false;
  end if;
  new.row_hash := public.trial_row_hash(new);
  return new;
end
$$;
revoke execute on function public.chain_trial() from public, anon, authenticated;
grant execute on function public.chain_trial() to service_role, researcher;
drop trigger if exists chain_trial on public.trials;
create trigger chain_trial before insert on public.trials for each row execute function public.chain_trial();
drop trigger if exists refuse_change on public.trials;
create trigger refuse_change before update or delete on public.trials for each row execute function public.refuse_change();
drop trigger if exists refuse_truncate on public.trials;
create trigger refuse_truncate before truncate on public.trials for each statement execute function public.refuse_change();
drop trigger if exists refuse_change on public.backtest_results;
create trigger refuse_change before update or delete on public.backtest_results for each row execute function public.refuse_change();
drop trigger if exists refuse_truncate on public.backtest_results;
create trigger refuse_truncate before truncate on public.backtest_results for each statement execute function public.refuse_change();

drop trigger if exists set_updated_at on public.research_runs;
create trigger set_updated_at before update on public.research_runs for each row execute function public.set_updated_at();
drop trigger if exists set_updated_at on public.agent_state;
create trigger set_updated_at before update on public.agent_state for each row execute function public.set_updated_at();
drop trigger if exists set_updated_at on public.feature_registry;
create trigger set_updated_at before update on public.feature_registry for each row execute function public.set_updated_at();

-- Registers an expression once, whoever proposes it; proposing it again returns the row that is there.
create or replace function public.propose_feature(payload jsonb) returns setof public.feature_registry
language plpgsql security invoker set search_path = '' as $$
declare
  v_version integer;
begin
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('public.feature_registry'));
  if not exists (select from public.feature_registry f where f.expression_sha256 = payload ->> 'expression_sha256') then
    select coalesce(max(f.version), 0) + 1 into v_version from public.feature_registry f where f.name = payload ->> 'name';
    insert into public.feature_registry (name, version, expression, expression_sha256, lookback, family, hypothesis, parents, run_id, meta)
    values (
      payload ->> 'name', v_version, payload ->> 'expression', payload ->> 'expression_sha256', (payload ->> 'lookback')::integer,
      coalesce(payload ->> 'family', ''), coalesce(payload ->> 'hypothesis', ''),
      array(select pg_catalog.jsonb_array_elements_text(coalesce(payload -> 'parents', '[]'))::uuid),
      (payload ->> 'run_id')::uuid, coalesce(payload -> 'meta', '{}')
    );
  end if;
  return query select f.* from public.feature_registry f where f.expression_sha256 = payload ->> 'expression_sha256';
end
$$;
revoke execute on function public.propose_feature(jsonb) from public, anon, authenticated;
grant execute on function public.propose_feature(jsonb) to service_role, researcher;

-- Records a verdict on a feature. A promotion holds on the family of data sets it was earned on; a feature promoted somewhere is not
-- called rejected because it fails elsewhere.
create or replace function public.record_verdict(p_feature_id uuid, p_dataset_id uuid, p_promoted boolean, p_reason text) returns void
language plpgsql security invoker set search_path = '' as $$
declare
  v_family_id text;
begin
  select d.family_id::text into v_family_id from public.datasets d where d.dataset_id = p_dataset_id;
  if p_promoted then
    update public.feature_registry f set status = 'promoted', reason = p_reason,
      meta = pg_catalog.jsonb_set(f.meta, '{promoted_on}',
        coalesce(f.meta -> 'promoted_on', '[]') - v_family_id || pg_catalog.to_jsonb(v_family_id))
    where f.feature_id = p_feature_id;
  else
    update public.feature_registry f set status = 'rejected', reason = p_reason
    where f.feature_id = p_feature_id and f.status <> 'promoted';
  end if;
  if not exists (select from public.feature_registry f where f.feature_id = p_feature_id) then
    raise exception 'unknown feature %', p_feature_id using errcode = 'foreign_key_violation';
  end if;
end
$$;
revoke execute on function public.record_verdict(uuid, uuid, boolean, text) from public, anon, authenticated;
grant execute on function public.record_verdict(uuid, uuid, boolean, text) to service_role;

-- The only door to a searched Sharpe ratio: one transaction writes the trial and its metrics. The same configuration in the
-- same run is the same trial: it is returned, not written again.
create or replace function public.record_trial(payload jsonb) returns bigint
language plpgsql security invoker set search_path = '' as $$
declare
  v_trial_id bigint;
begin
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('public.trials'));
  select t.trial_id into v_trial_id from public.trials t
  where t.run_id = (payload ->> 'run_id')::uuid and t.config_sha256 = payload ->> 'config_sha256';
  if v_trial_id is not null then
    return v_trial_id;
  end if;
  insert into public.trials (run_id, lineage, dataset_id, feature_id, config, config_sha256, n_obs, sharpe, skew, kurtosis, returns_uri,
    metrics_sha256, behaviour)
  select r.run_id, r.lineage, r.dataset_id, (payload ->> 'feature_id')::uuid, payload -> 'config', payload ->> 'config_sha256',
    (payload ->> 'n_obs')::integer, (payload ->> 'sharpe')::float8, (payload ->> 'skew')::float8, (payload ->> 'kurtosis')::float8,
    payload ->> 'returns_uri', public.jsonb_sha256(payload -> 'metrics'), (payload ->> 'behaviour')::extensions.vector
  from public.research_runs r where r.run_id = (payload ->> 'run_id')::uuid
  returning trial_id into v_trial_id;
  if v_trial_id is null then
    raise exception 'unknown run %', payload ->> 'run_id' using errcode = 'foreign_key_violation';
  end if;
  insert into public.backtest_results (strategy_id, feature_id, dataset_id, trial_id, config, metrics, artifacts)
  select payload ->> 'strategy_id', t.feature_id, t.dataset_id, t.trial_id, t.config, payload -> 'metrics', coalesce(payload -> 'artifacts', '{}')
  from public.trials t where t.trial_id = v_trial_id;
  return v_trial_id;
end
$$;
revoke execute on function public.record_trial(jsonb) from public, anon, authenticated;
grant execute on function public.record_trial(jsonb) to service_role, researcher;

-- How many trials were made on the family of data sets of a lineage, by anybody: rows, different configurations, and
-- clusters of configurations that do not merely vary each other.
create or replace function public.effective_trials(p_lineage text)
returns table (n_rows bigint, n_distinct bigint, n_clusters bigint)
language sql stable security invoker set search_path = '' as $$
  with families as (
    select distinct d.family_id from public.research_runs r join public.datasets d using (dataset_id) where r.lineage = p_lineage
  )
  select count(*), count(distinct t.config_sha256), count(*) filter (where t.opens_cluster)
  from public.trials t join public.datasets d using (dataset_id) where d.family_id in (select family_id from families)
$$;
revoke execute on function public.effective_trials(text) from public, anon, authenticated;
grant execute on function public.effective_trials(text) to service_role, researcher;

-- How every trial on the family of data sets of a lineage moves, one row a configuration, by anybody.
create or replace function public.trial_behaviours(p_lineage text)
returns table (trial_id bigint, config_sha256 text, behaviour extensions.vector)
language sql stable security invoker set search_path = '' as $$
  with families as (
    select distinct d.family_id from public.research_runs r join public.datasets d using (dataset_id) where r.lineage = p_lineage
  )
  select distinct on (t.config_sha256) t.trial_id, t.config_sha256, t.behaviour
  from public.trials t join public.datasets d using (dataset_id) where d.family_id in (select family_id from families)
  order by t.config_sha256, t.trial_id
$$;
revoke execute on function public.trial_behaviours(text) from public, anon, authenticated;
grant execute on function public.trial_behaviours(text) to service_role, researcher;

-- Names every trial whose hash, predecessor or number does not fit, or that is gone while its result is there; no row means the
-- ledger is whole.
create or replace function public.verify_trials()
returns table (trial_id bigint, problem text)
language sql stable security invoker set search_path = '' as $$
  select c.trial_id, c.problem from (
    select t.trial_id,
      case
        when t.trial_id <> row_number() over (order by t.trial_id) then 'a trial before this one is missing'
        when t.prev_hash <> coalesce(lag(t.row_hash) over (order by t.trial_id), repeat('0', 64)) then 'does not follow its predecessor'
        when t.row_hash <> public.trial_row_hash(t) then 'was changed after it was written'
      end as problem
    from public.trials t
    union all
    select b.trial_id, 'is missing, though its result is there'
    from public.backtest_results b where not exists (select from public.trials t where t.trial_id = b.trial_id)
    union all
    select t.trial_id, case when b.trial_id is null then 'has no result' else 'has another result than it was written with' end
    from public.trials t left join public.backtest_results b using (trial_id)
    where b.trial_id is null or t.metrics_sha256 <> public.jsonb_sha256(b.metrics)
  ) c
  where c.problem is not null order by c.trial_id
$$;
revoke execute on function public.verify_trials() from public, anon, authenticated;
grant execute on function public.verify_trials() to service_role, researcher;

-- Opens the hold-out of a lineage: once. The same run may ask again with the same candidates, because it may have been killed in
-- between and would learn nothing new; anybody else, and any other candidate, is refused.
create or replace function public.open_holdout(p_lineage text, p_run_id uuid, p_candidates jsonb) returns integer
language plpgsql security invoker set search_path = '' as $$
declare
  v_opening public.holdout_openings;
  v_dataset public.datasets;
begin
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('public.holdout_openings'));
  select * into v_opening from public.holdout_openings h where h.lineage = p_lineage;
  if found then
    if v_opening.run_id = p_run_id and v_opening.candidates = p_candidates then
      return v_opening.opening_number;
    end if;
    raise exception 'the hold-out of lineage % was opened at % and opens once', p_lineage, v_opening.opened_at
      using errcode = 'unique_violation';
  end if;
  select d.* into v_dataset from public.research_runs r join public.datasets d using (dataset_id)
  where r.run_id = p_run_id and r.lineage = p_lineage;
  if not found then
    raise exception 'run % is not of lineage %', p_run_id, p_lineage using errcode = 'foreign_key_violation';
  end if;
  insert into public.holdout_openings (lineage, dataset_id, run_id, opening_number, candidates)
  select p_lineage, v_dataset.dataset_id, p_run_id, count(*) + 1, p_candidates
  from public.holdout_openings h join public.datasets d using (dataset_id) where d.family_id = v_dataset.family_id
  returning * into v_opening;
  return v_opening.opening_number;
end
$$;
revoke execute on function public.open_holdout(text, uuid, jsonb) from public, anon, authenticated;
grant execute on function public.open_holdout(text, uuid, jsonb) to service_role;

-- What was opened stays opened: a row is never removed, and only its result is added, once.
create or replace function public.guard_holdout_opening() returns trigger
language plpgsql set search_path = '' as $$
begin
  if pg_catalog.to_jsonb(new) - 'metrics' is distinct from pg_catalog.to_jsonb(old) - 'metrics'
     or (old.metrics is not null and new.metrics is distinct from old.metrics) then
    raise exception 'the hold-out of lineage % was opened at %: its row never changes', old.lineage, old.opened_at
      using errcode = 'restrict_violation';
  end if;
  return new;
end
$$;
revoke execute on function public.guard_holdout_opening() from public, anon, authenticated;
drop trigger if exists guard_holdout_opening on public.holdout_openings;
create trigger guard_holdout_opening before update on public.holdout_openings
  for each row execute function public.guard_holdout_opening();
drop trigger if exists refuse_change on public.holdout_openings;
create trigger refuse_change before delete on public.holdout_openings for each row execute function public.refuse_change();
drop trigger if exists refuse_truncate on public.holdout_openings;
create trigger refuse_truncate before truncate on public.holdout_openings for each statement execute function public.refuse_change();

create or replace function public.record_holdout(p_lineage text, p_run_id uuid, p_metrics jsonb) returns void
language plpgsql security invoker set search_path = '' as $$
begin
  update public.holdout_openings h set metrics = p_metrics
  where h.lineage = p_lineage and h.run_id = p_run_id and (h.metrics is null or h.metrics = p_metrics);
  if not found then
    raise exception 'the hold-out of lineage % has its result already, or was not opened by run %', p_lineage, p_run_id
      using errcode = 'unique_violation';
  end if;
end
$$;
revoke execute on function public.record_holdout(text, uuid, jsonb) from public, anon, authenticated;
grant execute on function public.record_holdout(text, uuid, jsonb) to service_role;

do $$
declare
  v_table text;
begin
  foreach v_table in array array['research_runs', 'tool_calls', 'agent_state', 'feature_registry', 'trials', 'backtest_results', 'holdout_openings'] loop
    execute pg_catalog.format('alter table public.%I enable row level security', v_table);
    execute pg_catalog.format('revoke all on public.%I from public, anon, authenticated', v_table);
    execute pg_catalog.format('grant all on public.%I to service_role', v_table);
  end loop;
end
$$;
-- Not `report`: it may hold figures of an opened hold-out, which no later search may learn from.
grant select (run_id, request, dataset_id, lineage, thread_id, planner, status, budget, usage, code_version, started_at, finished_at)
  on public.research_runs to researcher;
grant select, insert on public.tool_calls, public.feature_registry, public.trials, public.backtest_results to researcher;
grant select, insert, update on public.agent_state to researcher;

drop policy if exists researcher_reads on public.research_runs;
create policy researcher_reads on public.research_runs for select to researcher using (true);
drop policy if exists researcher_reads on public.tool_calls;
create policy researcher_reads on public.tool_calls for select to researcher using (true);
drop policy if exists researcher_appends on public.tool_calls;
create policy researcher_appends on public.tool_calls for insert to researcher with check (true);
drop policy if exists researcher_reads on public.feature_registry;
create policy researcher_reads on public.feature_registry for select to researcher using (true);
drop policy if exists researcher_proposes on public.feature_registry;
create policy researcher_proposes on public.feature_registry for insert to researcher
  with check (status = 'proposed' and not meta ? 'promoted_on');
drop policy if exists researcher_reads on public.trials;
create policy researcher_reads on public.trials for select to researcher using (true);
drop policy if exists researcher_appends on public.trials;
create policy researcher_appends on public.trials for insert to researcher with check (true);
drop policy if exists researcher_reads on public.backtest_results;
create policy researcher_reads on public.backtest_results for select to researcher using (true);
drop policy if exists researcher_appends on public.backtest_results;
create policy researcher_appends on public.backtest_results for insert to researcher with check (true);
drop policy if exists researcher_keeps on public.agent_state;
create policy researcher_keeps on public.agent_state for all to researcher using (true) with check (true);

-- Trials with what they tried and what came out.
create or replace view public.trial_results with (security_invoker = true) as
  select t.trial_id, t.run_id, t.lineage, t.dataset_id, d.family_id, t.feature_id, f.name, f.family, f.expression, f.expression_sha256,
    f.hypothesis, f.status as feature_status, coalesce(f.meta -> 'promoted_on' ? d.family_id::text, false) as promoted_here, t.config,
    t.config_sha256, t.n_obs, t.sharpe, t.skew, t.kurtosis, t.returns_uri, t.opens_cluster, b.metrics, t.created_at
  from public.trials t join public.datasets d using (dataset_id) join public.feature_registry f using (feature_id)
  join public.backtest_results b using (trial_id);
revoke all on public.trial_results from public, anon, authenticated;
grant select on public.trial_results to service_role, researcher;
