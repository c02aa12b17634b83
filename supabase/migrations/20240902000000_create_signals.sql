-- What the trading agents hear and how they judge it: signals, their screening, the market they meet, and who trades under which ticker.
-- Exists so that a signal is stored once however often it is fetched, and is worked on by one worker at a time.

do $$
begin
  if to_regtype('public.signal_category') is null then
    create type public.signal_category as enum ('supplier_disruption', 'positive_news', 'earnings_surprise', 'regulatory_action', 'macro_shift', 'neutral');
  end if;
  if to_regtype('public.severity') is null then
    create type public.severity as enum ('low', 'medium', 'high', 'critical');
  end if;
  if to_regtype('public.market_regime') is null then
    create type public.market_regime as enum ('bull', 'bear', 'sideways', 'unknown');
  end if;
  if to_regtype('public.vix_band') is null then
    create type public.vix_band as enum ('low', 'medium', 'high', 'extreme');
  end if;
  if to_regtype('public.pipeline_status') is null then
    create type public.pipeline_status as enum ('pending', 'killed', 'submitted', 'partially_filled', 'filled', 'closed', 'cancelled', 'expired', 'rejected', 'unknown');
  end if;
  if to_regtype('public.agent_health_status') is null then
    create type public.agent_health_status as enum ('healthy', 'degraded', 'failed');
  end if;
  if to_regtype('public.side') is null then
    create type public.side as enum ('buy', 'sell');
  end if;
  if to_regtype('public.stage') is null then
    create type public.stage as enum ('hermes', 'icarus', 'hades', 'artemis', 'pythia', 'limits', 'zeus', 'ares');
  end if;
  if to_regtype('public.binding_constraint') is null then
    create type public.binding_constraint as enum (
      'out_of_universe', 'stale_signal', 'muted_pattern', 'sanctions', 'sanctions_list_missing', 'esg_block', 'macro_unavailable', 'vix_extreme',
      'bear_regime', 'tier_blocked', 'cold_start_low_confidence', 'confidence_below_floor', 'cooldown', 'ticker_cap', 'sector_cap', 'global_cap',
      'budget', 'halted', 'llm_unavailable', 'reasoning_quality', 'llm_rejected', 'seniority_cap', 'price_unavailable', 'size_below_one_share',
      'broker_unavailable', 'unknown_equity');
  end if;
  if to_regtype('public.exchange') is null then
    create type public.exchange as enum ('XETRA', 'NYSE', 'NASDAQ');
  end if;
end
$$;

create table if not exists public.signals (
  signal_id uuid primary key default gen_random_uuid(),
  source text not null check (btrim(source) <> ''),
  source_key text not null check (btrim(source_key) <> ''),
  source_url text,
  headline text not null check (btrim(headline) <> '' and length(headline) <= 2000),
  summary text not null default '' check (length(summary) <= 20000),
  published_at timestamptz not null,
  category public.signal_category not null,
  severity public.severity not null,
  affected_tickers text[] not null default '{}'
    check (array_position(affected_tickers, null) is null and array_to_string(affected_tickers, '') = upper(array_to_string(affected_tickers, ''))
      and array_to_string(affected_tickers, '') !~ '\s' and not '' = any (affected_tickers)),
  supplier text check (btrim(supplier) <> ''),
  raw_text text check (octet_length(raw_text) <= 1048576),
  consumed_by_icarus boolean not null default false,
  consumed_at timestamptz,
  claimed_by text check (btrim(claimed_by) <> ''),
  claimed_at timestamptz,
  claims integer not null default 0 check (claims >= 0),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  unique (source, source_key),
  check (consumed_by_icarus = (consumed_at is not null)),
  check ((claimed_by is null) = (claimed_at is null))
);
comment on column public.signals.source_key is 'What the source calls the item: accession number, link, guid. Fetching it again is the same signal.';
comment on column public.signals.claims is 'How often a worker took it; one that never finishes is offered five times.';
create index if not exists signals_open on public.signals (published_at, signal_id) where not consumed_by_icarus;

create table if not exists public.filtered_signals (
  signal_id uuid primary key references public.signals on delete cascade,
  compliance_score float8 not null check (compliance_score between 0 and 1),
  esg_flag boolean not null default false,
  ofac_flag boolean not null default false,
  downgraded boolean not null default false,
  killed boolean not null default false,
  severity public.severity not null,
  notes text[] not null default '{}',
  list_version text,
  matched_entry text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  check (killed or list_version is not null)
);
comment on column public.filtered_signals.severity is 'Effective severity, after a downgrade or an ESG flag.';
comment on column public.filtered_signals.list_version is 'Which sanctions lists it was screened against; absent only where it was refused because there were none.';

create table if not exists public.macro_context (
  context_id uuid primary key default gen_random_uuid(),
  regime public.market_regime not null,
  vix float8 check (vix > 0 and vix < 'infinity'),
  sp500_1m_return float8 check (sp500_1m_return >= -1 and sp500_1m_return < 'infinity'),
  sector_momentum jsonb not null default '{}' check (jsonb_typeof(sector_momentum) = 'object' and octet_length(sector_momentum::text) <= 65536),
  suppress boolean not null,
  suppress_reason text,
  as_of timestamptz not null unique,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  check (suppress = (suppress_reason is not null)),
  check (regime <> 'unknown' or suppress),
  check (regime = 'unknown' or vix is not null)
);

create table if not exists public.ticker_map (
  supplier_name text not null check (btrim(supplier_name) <> ''),
  ticker text not null check (ticker <> '' and ticker = upper(ticker) and ticker !~ '\s'),
  exchange public.exchange not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (supplier_name, exchange)
);

-- Stores an item of a source once. Until somebody claims it a corrected text replaces the first; after that it stays as it was
-- judged. In no case does fetching it again make it new.
create or replace function public.upsert_signal(payload jsonb) returns table (signal_id uuid, inserted boolean)
language plpgsql security invoker set search_path = '' as $$
begin
  return query
    insert into public.signals as s (signal_id, source, source_key, source_url, headline, summary, published_at, category, severity, affected_tickers, supplier, raw_text)
    values (
      coalesce((payload ->> 'signal_id')::uuid, pg_catalog.gen_random_uuid()), payload ->> 'source', payload ->> 'source_key', payload ->> 'source_url',
      payload ->> 'headline', coalesce(payload ->> 'summary', ''), (payload ->> 'published_at')::timestamptz,
      (payload ->> 'category')::public.signal_category, (payload ->> 'severity')::public.severity,
      array(select pg_catalog.jsonb_array_elements_text(coalesce(payload -> 'affected_tickers', '[]'))), payload ->> 'supplier', payload ->> 'raw_text'
    )
    on conflict (source, source_key) do update set source_url = excluded.source_url, headline = excluded.headline, summary = excluded.summary,
      published_at = excluded.published_at, category = excluded.category, severity = excluded.severity,
      affected_tickers = excluded.affected_tickers, supplier = excluded.supplier, raw_text = excluded.raw_text
    where s.claimed_by is null and not s.consumed_by_icarus
    returning s.signal_id, s.xmax = 0;
  if not found then
    return query select s.signal_id, false from public.signals s
      where s.source = payload ->> 'source' and s.source_key = payload ->> 'source_key';
  end if;
end
$$;

-- Gives a worker the oldest open signals, each to nobody else. A signal whose worker vanished comes back after 15 minutes, at most
-- five times.
create or replace function public.claim_signals(worker text, n integer default 100) returns setof public.signals
language plpgsql security invoker set search_path = '' as $$
begin
  if (btrim(worker) <> '' and n between 1 and 1000) is not true then
    raise exception 'worker must be a name and n in 1..1000, were % and %', worker, n using errcode = 'invalid_parameter_value';
  end if;
  return query
    with open as materialized (
      select c.signal_id from public.signals c
      where not c.consumed_by_icarus and c.claims < 5 and (c.claimed_at is null or c.claimed_at < now() - interval '15 minutes')
      order by c.published_at, c.signal_id limit n for update skip locked
    ), taken as (
      update public.signals s set claimed_by = worker, claimed_at = pg_catalog.clock_timestamp(), claims = s.claims + 1
      from open where s.signal_id = open.signal_id
      returning s.*
    )
    select t.* from taken t order by t.published_at, t.signal_id;
end
$$;

-- Closes signals that a worker holds, and returns how many. One that somebody else took over meanwhile is not closed.
create or replace function public.consume_signals(worker text, ids uuid[]) returns integer
language plpgsql security invoker set search_path = '' as $$
declare
  v_count integer;
begin
  update public.signals s set consumed_by_icarus = true, consumed_at = pg_catalog.clock_timestamp()
  where s.signal_id = any (ids) and s.claimed_by = worker and not s.consumed_by_icarus;
  get diagnostics v_count = row_count;
  return v_count;
end
$$;

do $$
declare
  v_name text;
begin
  foreach v_name in array array['signals', 'filtered_signals', 'macro_context', 'ticker_map'] loop
    execute pg_catalog.format('alter table public.%I enable row level security', v_name);
    execute pg_catalog.format('revoke all on public.%I from public, anon, authenticated', v_name);
    execute pg_catalog.format('grant all on public.%I to service_role', v_name);
    execute pg_catalog.format('drop trigger if exists set_updated_at on public.%I', v_name);
    execute pg_catalog.format('create trigger set_updated_at before update on public.%I for each row execute function public.set_updated_at()', v_name);
  end loop;
  foreach v_name in array array['public.upsert_signal(jsonb)', 'public.claim_signals(text, integer)', 'public.consume_signals(text, uuid[])'] loop
    execute pg_catalog.format('revoke execute on function %s from public, anon, authenticated', v_name);
    execute pg_catalog.format('grant execute on function %s to service_role', v_name);
  end loop;
end
$$;
