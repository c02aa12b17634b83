-- How the agents are doing and what they have earned: health, breakers, seniority, experience, milestones; and the audit log that nobody
-- can rewrite unseen. Exists so that a promotion or a halt can be traced to what caused it.

do $$
begin
  if to_regtype('public.breaker_state') is null then
    create type public.breaker_state as enum ('closed', 'open', 'half_open');
  end if;
  if to_regtype('public.seniority_tier') is null then
    create type public.seniority_tier as enum ('trainee', 'junior', 'intermediate', 'senior');
  end if;
  if to_regtype('public.milestone_stage') is null then
    create type public.milestone_stage as enum ('seed', 'sprint', 'scale', 'serious', 'empire');
  end if;
end
$$;

create table if not exists public.agent_health (
  health_id uuid primary key default gen_random_uuid(),
  agent_name text not null check (btrim(agent_name) <> ''),
  status public.agent_health_status not null,
  message text not null default '' check (length(message) <= 20000),
  error_count integer not null default 0 check (error_count >= 0),
  checked_at timestamptz not null,
  created_at timestamptz not null default now()
);
create index if not exists agent_health_agent_name on public.agent_health (agent_name, checked_at desc, health_id desc);

create or replace view public.agent_health_latest with (security_invoker = true) as
  select distinct on (h.agent_name) h.* from public.agent_health h order by h.agent_name, h.checked_at desc, h.health_id desc;

-- Keeps the newest thousand reports of an agent. Two watchdogs never wait for each other: what one is removing the other skips.
create or replace function public.bound_agent_health() returns trigger
language plpgsql set search_path = '' as $$
begin
  delete from public.agent_health h where h.health_id in (
    select o.health_id from public.agent_health o
    where o.agent_name = new.agent_name and (o.checked_at, o.health_id) <= (
      select k.checked_at, k.health_id from public.agent_health k where k.agent_name = new.agent_name
      order by k.checked_at desc, k.health_id desc offset 1000 limit 1)
    for update skip locked);
  return null;
end
$$;
drop trigger if exists bound_agent_health on public.agent_health;
create trigger bound_agent_health after insert on public.agent_health for each row execute function public.bound_agent_health();

create table if not exists public.circuit_breakers (
  agent_name text primary key check (btrim(agent_name) <> ''),
  state public.breaker_state not null default 'closed',
  failures integer not null default 0 check (failures >= 0),
  opened_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  check ((state = 'closed') = (opened_at is null))
);

create table if not exists public.agent_seniority (
  agent_name text primary key check (btrim(agent_name) <> ''),
  tier public.seniority_tier not null default 'trainee',
  level integer not null default 1 check (level between 1 and 10),
  wins integer not null default 0 check (wins >= 0),
  criteria jsonb not null default '{}' check (jsonb_typeof(criteria) = 'object' and octet_length(criteria::text) <= 65536),
  cleared boolean not null default false,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
comment on column public.agent_seniority.wins is 'Winning closed trades with trusted fills that the agent took part in.';
comment on column public.agent_seniority.cleared is 'The criteria of its tier are met.';

create table if not exists public.agent_seniority_history (
  history_id uuid primary key default gen_random_uuid(),
  agent_name text not null references public.agent_seniority,
  from_tier public.seniority_tier,
  from_level integer,
  to_tier public.seniority_tier not null,
  to_level integer not null,
  wins integer not null,
  criteria jsonb not null,
  changed_at timestamptz not null,
  created_at timestamptz not null default now()
);
create index if not exists agent_seniority_history_agent_name on public.agent_seniority_history (agent_name, changed_at);
drop trigger if exists refuse_change on public.agent_seniority_history;
create trigger refuse_change before update or delete on public.agent_seniority_history for each row execute function public.refuse_change();
drop trigger if exists refuse_truncate on public.agent_seniority_history;
create trigger refuse_truncate before truncate on public.agent_seniority_history for each statement execute function public.refuse_change();

-- Whoever moves an agent on the ladder, the move is in the history.
create or replace function public.keep_seniority_history() returns trigger
language plpgsql set search_path = '' as $$
begin
  if tg_op = 'INSERT' then
    insert into public.agent_seniority_history (agent_name, to_tier, to_level, wins, criteria, changed_at)
    values (new.agent_name, new.tier, new.level, new.wins, new.criteria, pg_catalog.clock_timestamp());
  elsif (new.tier, new.level) is distinct from (old.tier, old.level) then
    insert into public.agent_seniority_history (agent_name, from_tier, from_level, to_tier, to_level, wins, criteria, changed_at)
    values (new.agent_name, old.tier, old.level, new.tier, new.level, new.wins, new.criteria, pg_catalog.clock_timestamp());
  end if;
  return null;
end
$$;
drop trigger if exists keep_seniority_history on public.agent_seniority;
create trigger keep_seniority_history after insert or update on public.agent_seniority
  for each row execute function public.keep_seniority_history();

-- The system is as senior as its least senior agent.
create or replace view public.system_seniority with (security_invoker = true) as
  select s.tier, s.level, s.agent_name as lowest_agent, (select count(*) from public.agent_seniority) as n_agents,
    (select coalesce(bool_and(a.cleared), false) from public.agent_seniority a) as all_cleared
  from public.agent_seniority s order by s.tier, s.level, s.wins, s.agent_name limit 1;

create table if not exists public.agent_exp_ledger (
  entry_id uuid primary key default gen_random_uuid(),
  agent_name text not null check (btrim(agent_name) <> ''),
  event_type text not null check (btrim(event_type) <> ''),
  source_ref text not null check (btrim(source_ref) <> ''),
  exp integer not null,
  details jsonb not null default '{}' check (octet_length(details::text) <= 65536),
  created_at timestamptz not null default now(),
  unique (agent_name, event_type, source_ref)
);
drop trigger if exists refuse_change on public.agent_exp_ledger;
create trigger refuse_change before update or delete on public.agent_exp_ledger for each row execute function public.refuse_change();
drop trigger if exists refuse_truncate on public.agent_exp_ledger;
create trigger refuse_truncate before truncate on public.agent_exp_ledger for each statement execute function public.refuse_change();

create table if not exists public.agent_exp (
  agent_name text primary key,
  exp bigint not null check (exp >= 0),
  level integer not null check (level >= 0),
  n_entries integer not null check (n_entries > 0),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

-- The highest level L whose round(500 * L^1.6) is reached.
create or replace function public.exp_level(p_exp bigint) returns integer
language plpgsql immutable set search_path = '' as $$
declare
  v_level integer := floor((greatest(p_exp, 0) / 500.0) ^ (1 / 1.6));
begin
  while round(500 * (v_level + 1)::numeric ^ 1.6) <= p_exp loop
    v_level := v_level + 1;
  end loop;
  while v_level > 0 and round(500 * v_level::numeric ^ 1.6) > p_exp loop
    v_level := v_level - 1;
  end loop;
  return v_level;
end
$$;

create or replace function public.add_exp() returns trigger
language plpgsql set search_path = '' as $$
begin
  insert into public.agent_exp as e (agent_name, exp, level, n_entries)
  values (new.agent_name, greatest(new.exp, 0), public.exp_level(greatest(new.exp, 0)), 1)
  on conflict (agent_name) do update set exp = greatest(e.exp + new.exp, 0),
    level = public.exp_level(greatest(e.exp + new.exp, 0)), n_entries = e.n_entries + 1;
  return null;
end
$$;
drop trigger if exists add_exp on public.agent_exp_ledger;
create trigger add_exp after insert on public.agent_exp_ledger for each row execute function public.add_exp();

-- Mints experience for several agents at once; an entry that is there already is not minted again. Returns how many were new.
create or replace function public.mint_exp(payload jsonb) returns integer
language plpgsql security invoker set search_path = '' as $$
declare
  v_count integer;
begin
  -- In the order of the names, so that two that mint for the same agents wait for each other in one direction only.
  insert into public.agent_exp_ledger (agent_name, event_type, source_ref, exp, details)
  select x ->> 'agent_name', x ->> 'event_type', x ->> 'source_ref', (x ->> 'exp')::integer, coalesce(x -> 'details', '{}')
  from pg_catalog.jsonb_array_elements(payload -> 'entries') x order by x ->> 'agent_name', x ->> 'event_type', x ->> 'source_ref'
  on conflict (agent_name, event_type, source_ref) do nothing;
  get diagnostics v_count = row_count;
  return v_count;
end
$$;

create or replace view public.system_exp with (security_invoker = true) as
  select coalesce(sum(e.exp), 0)::bigint as total_exp, min(e.level) as lowest_level, max(e.level) as highest_level, count(*) as n_agents
  from public.agent_exp e;

create table if not exists public.milestone_state (
  singleton boolean primary key default true check (singleton),
  milestone_origin numeric not null check (milestone_origin >= 0 and milestone_origin < 'infinity'),
  vault_balance numeric not null default 0 check (vault_balance >= 0 and vault_balance < 'infinity'),
  total_vaulted numeric not null default 0 check (total_vaulted >= 0 and total_vaulted < 'infinity'),
  crossed_stages text[] not null default '{}' check (crossed_stages <@ enum_range(null::public.milestone_stage)::text[]),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  check (vault_balance <= total_vaulted)
);
comment on column public.milestone_state.milestone_origin is 'Equity at the last crossed stage: the next profit is counted from here.';

create or replace function public.record_milestones(payload jsonb) returns void
language sql volatile security invoker set search_path = '' as $$
  insert into public.milestone_state (milestone_origin, vault_balance, total_vaulted, crossed_stages)
  values ((payload ->> 'milestone_origin')::numeric, (payload ->> 'vault_balance')::numeric, (payload ->> 'total_vaulted')::numeric,
    array(select jsonb_array_elements_text(payload -> 'crossed_stages')))
  on conflict (singleton) do update set milestone_origin = excluded.milestone_origin, vault_balance = excluded.vault_balance,
    total_vaulted = excluded.total_vaulted, crossed_stages = excluded.crossed_stages
$$;

create table if not exists public.audit_log (
  entry_id bigint primary key check (entry_id > 0),
  event_type text not null check (btrim(event_type) <> ''),
  actor text not null check (btrim(actor) <> ''),
  subject text not null check (btrim(subject) <> ''),
  payload jsonb not null default '{}' check (octet_length(payload::text) <= 1048576),
  prev_hash text not null,
  row_hash text not null unique,
  created_at timestamptz not null default now()
);
comment on column public.audit_log.event_type is 'Orders, halts, gates, promotions, in dots: order.sent, trading.halted, gate.refused, agent.promoted.';
create index if not exists audit_log_subject on public.audit_log (subject);

create or replace function public.audit_row_hash(a public.audit_log) returns text
language sql stable set search_path = '' as $$
  select encode(sha256(convert_to(a.prev_hash || '|' || jsonb_build_object(
    'entry_id', a.entry_id, 'event_type', a.event_type, 'actor', a.actor, 'subject', a.subject, 'payload', a.payload,
    'created_at', (extract(epoch from a.created_at) * 1000000)::int8)::text, 'UTF8')), 'hex')
$$;

-- Numbers entries without gaps and chains their hashes; one writer at a time, until its transaction ends.
create or replace function public.chain_audit_entry() returns trigger
language plpgsql set search_path = '' as $$
begin
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('public.audit_log'));
  select coalesce(max(a.entry_id), 0) + 1 into new.entry_id from public.audit_log a;
  select a.row_hash into new.prev_hash from public.audit_log a where a.entry_id = new.entry_id - 1;
  new.prev_hash := coalesce(new.prev_hash, pg_catalog.repeat('0', 64));
  new.created_at := pg_catalog.clock_timestamp();
  new.row_hash := public.audit_row_hash(new);
  return new;
end
$$;
drop trigger if exists chain_audit_entry on public.audit_log;
create trigger chain_audit_entry before insert on public.audit_log for each row execute function public.chain_audit_entry();
drop trigger if exists refuse_change on public.audit_log;
create trigger refuse_change before update or delete on public.audit_log for each row execute function public.refuse_change();
drop trigger if exists refuse_truncate on public.audit_log;
create trigger refuse_truncate before truncate on public.audit_log for each statement execute function public.refuse_change();

-- Names every entry whose hash, predecessor or number does not fit; no row means the log is whole. A chain cannot show that its end
-- was cut off: who noted an entry's number and hash elsewhere hands them in, and hears whether it is still there, unchanged.
create or replace function public.verify_audit_log(p_known_id bigint default null, p_known_hash text default null)
returns table (entry_id bigint, problem text)
language sql stable security invoker set search_path = '' as $$
  select c.entry_id, c.problem from (
    select a.entry_id,
      case
        when a.entry_id <> row_number() over (order by a.entry_id) then 'an entry before this one is missing'
        when a.prev_hash <> coalesce(lag(a.row_hash) over (order by a.entry_id), repeat('0', 64)) then 'does not follow its predecessor'
        when a.row_hash <> public.audit_row_hash(a) then 'was changed after it was written'
        when a.entry_id = p_known_id and a.row_hash is distinct from p_known_hash then 'is not the entry that was noted'
      end as problem
    from public.audit_log a
    union all
    select p_known_id, 'is missing, though it was noted'
    where p_known_id is not null and not exists (select from public.audit_log a where a.entry_id = p_known_id)
  ) c
  where c.problem is not null order by c.entry_id
$$;

do $$
declare
  v_name text;
begin
  foreach v_name in array array['agent_health', 'circuit_breakers', 'agent_seniority', 'agent_seniority_history', 'agent_exp_ledger', 'agent_exp',
    'milestone_state', 'audit_log'] loop
    execute pg_catalog.format('alter table public.%I enable row level security', v_name);
    execute pg_catalog.format('revoke all on public.%I from public, anon, authenticated', v_name);
    execute pg_catalog.format('grant all on public.%I to service_role', v_name);
  end loop;
  foreach v_name in array array['agent_health_latest', 'system_seniority', 'system_exp'] loop
    execute pg_catalog.format('revoke all on public.%I from public, anon, authenticated', v_name);
    execute pg_catalog.format('grant select on public.%I to service_role', v_name);
  end loop;
  foreach v_name in array array['circuit_breakers', 'agent_seniority', 'agent_exp', 'milestone_state'] loop
    execute pg_catalog.format('drop trigger if exists set_updated_at on public.%I', v_name);
    execute pg_catalog.format('create trigger set_updated_at before update on public.%I for each row execute function public.set_updated_at()', v_name);
  end loop;
  foreach v_name in array array['bound_agent_health()', 'keep_seniority_history()', 'add_exp()', 'chain_audit_entry()'] loop
    execute pg_catalog.format('revoke execute on function public.%s from public, anon, authenticated', v_name);
  end loop;
  foreach v_name in array array['exp_level(bigint)', 'mint_exp(jsonb)', 'record_milestones(jsonb)', 'audit_row_hash(public.audit_log)', 'verify_audit_log(bigint, text)'] loop
    execute pg_catalog.format('revoke execute on function public.%s from public, anon, authenticated', v_name);
    execute pg_catalog.format('grant execute on function public.%s to service_role', v_name);
  end loop;
end
$$;
