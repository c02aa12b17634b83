-- Data sets, their bars and labels. The seal lives here: `researcher` sees no bar and no label from `sealed_from` on.

create table if not exists public.datasets (
  dataset_id uuid primary key default gen_random_uuid(),
  name text not null check (name ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$'),
  version integer not null default 1 check (version > 0),
  source text not null,
  content_sha256 text not null check (content_sha256 ~ '^[0-9a-f]{64}$'),
  symbols text[] not null check (cardinality(symbols) > 0),
  fields text[] not null,
  frequency text not null default '1d',
  n_bars integer not null check (n_bars > 0),
  first_ts timestamptz not null,
  last_ts timestamptz not null,
  sealed_from timestamptz not null,
  tradable boolean not null default true,
  synthetic boolean not null default false,
  family_id uuid not null default gen_random_uuid(),
  caveats jsonb not null default '[]',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  unique (name, version),
  check (first_ts <= last_ts),
  check (sealed_from > first_ts)
);
create index if not exists datasets_family_id on public.datasets (family_id);
comment on column public.datasets.family_id is 'Data sets with mostly the same bars: their trials and hold-out openings are counted together.';
comment on column public.datasets.tradable is 'False for figures nobody can hold, such as the VIX: nothing is promoted on them.';
comment on column public.datasets.sealed_from is 'First sealed moment; bars from here on are the hold-out. It can never be moved.';

create table if not exists public.market_bars (
  dataset_id uuid not null references public.datasets on delete cascade,
  symbol text not null check (symbol <> ''),
  ts timestamptz not null,
  open float8 check (open > 0 and open < 'infinity'),
  high float8 check (high > 0 and high < 'infinity'),
  low float8 check (low > 0 and low < 'infinity'),
  close float8 check (close > 0 and close < 'infinity'),
  volume float8 check (volume >= 0 and volume < 'infinity'),
  primary key (dataset_id, symbol, ts),
  check (high >= low)
);

create table if not exists public.labels (
  dataset_id uuid not null references public.datasets on delete cascade,
  symbol text not null,
  ts timestamptz not null,
  name text not null,
  horizon_end timestamptz not null,
  value float8 not null check (value > '-infinity' and value < 'infinity'),
  created_at timestamptz not null default now(),
  primary key (dataset_id, symbol, ts, name),
  check (horizon_end > ts)
);

create or replace function public.guard_dataset() returns trigger
language plpgsql set search_path = '' as $$
begin
  if new.sealed_from is distinct from old.sealed_from or new.content_sha256 is distinct from old.content_sha256
     or new.name is distinct from old.name or new.version is distinct from old.version or new.family_id is distinct from old.family_id then
    raise exception 'data set % is sealed: name, version, content and seal never change; import a new version', old.name
      using errcode = 'restrict_violation';
  end if;
  new.updated_at := pg_catalog.clock_timestamp();
  return new;
end
$$;
revoke execute on function public.guard_dataset() from public, anon, authenticated;
drop trigger if exists guard_dataset on public.datasets;
create trigger guard_dataset before update on public.datasets for each row execute function public.guard_dataset();

alter table public.datasets enable row level security;
alter table public.market_bars enable row level security;
alter table public.labels enable row level security;
revoke all on public.datasets, public.market_bars, public.labels from public, anon, authenticated;
grant all on public.datasets, public.market_bars, public.labels to service_role;
grant select on public.datasets, public.market_bars, public.labels to researcher;

drop policy if exists researcher_reads on public.datasets;
create policy researcher_reads on public.datasets for select to researcher using (true);
drop policy if exists researcher_reads_before_the_seal on public.market_bars;
create policy researcher_reads_before_the_seal on public.market_bars for select to researcher
  using (ts < (select d.sealed_from from public.datasets d where d.dataset_id = market_bars.dataset_id));
drop policy if exists researcher_reads_before_the_seal on public.labels;
create policy researcher_reads_before_the_seal on public.labels for select to researcher
  using (horizon_end < (select d.sealed_from from public.datasets d where d.dataset_id = labels.dataset_id));

-- Bars of one symbol a row, columns packed as big-endian int8/float8, NaN where a value is absent: one round trip for a panel.
-- Runs with the caller's rights, so that a researcher gets only what lies before the seal.
create or replace function public.load_panel(p_dataset_id uuid, p_symbols text[] default null)
returns table (symbol text, n_bars bigint, ts bytea, open bytea, high bytea, low bytea, close bytea, volume bytea)
language sql stable security invoker set search_path = '' as $$
  select b.symbol, count(*),
    string_agg(int8send((extract(epoch from b.ts) * 1000000)::int8), ''::bytea order by b.ts),
    string_agg(float8send(coalesce(b.open, 'nan')), ''::bytea order by b.ts),
    string_agg(float8send(coalesce(b.high, 'nan')), ''::bytea order by b.ts),
    string_agg(float8send(coalesce(b.low, 'nan')), ''::bytea order by b.ts),
    string_agg(float8send(coalesce(b.close, 'nan')), ''::bytea order by b.ts),
    string_agg(float8send(coalesce(b.volume, 'nan')), ''::bytea order by b.ts)
  from public.market_bars b
  where b.dataset_id = p_dataset_id and (p_symbols is null or b.symbol = any (p_symbols))
  group by b.symbol
$$;
revoke execute on function public.load_panel(uuid, text[]) from public, anon, authenticated;
grant execute on function public.load_panel(uuid, text[]) to service_role, researcher;

-- Writes a data set and its bars in one transaction. The same content under the same name is the same data set; other content under
-- the same name is its next version. Data sets with the same name, the same content, or mostly the same closes are one family: they
-- share the count of trials, the openings of the hold-out and the seal, so that a new name does not open what was sealed. A synthetic
-- market has no past and is a family of its own.
-- Bars come as columns: position of the symbol in `p_dataset.symbols`, microseconds since the epoch, then the prices, NaN = absent.
create or replace function public.import_dataset(
  p_dataset jsonb, p_symbol integer[], p_ts bigint[], p_open float8[], p_high float8[], p_low float8[], p_close float8[], p_volume float8[])
returns setof public.datasets
language plpgsql security invoker set search_path = '' as $$
declare
  v_dataset public.datasets;
  v_seal timestamptz;
  v_sealed_from timestamptz;
  v_family_id uuid;
  v_synthetic boolean := coalesce((p_dataset ->> 'synthetic')::boolean, false);
begin
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('public.datasets'));
  select d.* into v_dataset from public.datasets d
  where d.name = p_dataset ->> 'name' and d.content_sha256 = p_dataset ->> 'content_sha256';
  if found then
    if p_dataset ->> 'sealed_from' is not null and v_dataset.sealed_from <> (p_dataset ->> 'sealed_from')::timestamptz then
      raise exception 'data set % is sealed from %: a seal cannot be moved', v_dataset.name, v_dataset.sealed_from
        using errcode = 'restrict_violation';
    end if;
    return next v_dataset;
    return;
  end if;
  v_seal := (p_dataset ->> 'sealed_from')::timestamptz;
  select d.family_id into v_family_id from public.datasets d where d.name = p_dataset ->> 'name' limit 1;
  if v_family_id is null and not v_synthetic then
    select d.family_id into v_family_id from public.datasets d
    where d.content_sha256 = p_dataset ->> 'content_sha256' and not d.synthetic order by d.created_at limit 1;
  end if;
  if v_family_id is null and not v_synthetic then
    with sample as (
      select (p_dataset -> 'symbols') ->> (b.symbol - 1) as symbol, '1970-01-01 00:00:00+00'::timestamptz + b.ts * interval '1 microsecond' as ts, b.close
      from unnest(p_symbol, p_ts, p_close) with ordinality as b (symbol, ts, close, place)
      where b.place % greatest(1, cardinality(p_ts) / 1000) = 0 and b.close <> 'nan'
    )
    select d.family_id into v_family_id
    from public.datasets d cross join sample s
    join public.market_bars m on m.dataset_id = d.dataset_id and m.symbol = s.symbol and m.ts = s.ts
    where not d.synthetic and abs(m.close - s.close) <= 1e-6 * s.close
    group by d.dataset_id, d.family_id, d.created_at
    having count(*) >= 0.5 * (select count(*) from sample)
    order by d.created_at limit 1;
  end if;
  select min(d.sealed_from) into v_sealed_from from public.datasets d where d.family_id = v_family_id;
  if v_seal <> v_sealed_from then
    raise exception 'these bars, imported before as %, are sealed from %: a seal cannot be moved, neither by a new version nor under another name',
      (select min(d.name) from public.datasets d where d.family_id = v_family_id), v_sealed_from
      using errcode = 'restrict_violation';
  end if;
  if v_sealed_from > (p_dataset ->> 'last_ts')::timestamptz or v_sealed_from <= (p_dataset ->> 'first_ts')::timestamptz then
    raise exception 'these bars are sealed from %, which leaves none on one side: bring bars from before and after', v_sealed_from
      using errcode = 'restrict_violation';
  end if;
  insert into public.datasets (name, version, family_id, source, content_sha256, symbols, fields, frequency, n_bars, first_ts, last_ts,
    sealed_from, tradable, synthetic, caveats)
  select p_dataset ->> 'name', coalesce(max(d.version), 0) + 1, coalesce(v_family_id, gen_random_uuid()), p_dataset ->> 'source',
    p_dataset ->> 'content_sha256', array(select pg_catalog.jsonb_array_elements_text(p_dataset -> 'symbols')),
    array(select pg_catalog.jsonb_array_elements_text(p_dataset -> 'fields')),
    coalesce(p_dataset ->> 'frequency', '1d'), (p_dataset ->> 'n_bars')::integer, (p_dataset ->> 'first_ts')::timestamptz,
    (p_dataset ->> 'last_ts')::timestamptz,
    coalesce(v_sealed_from, v_seal, (p_dataset ->> 'default_sealed_from')::timestamptz),
    coalesce((p_dataset ->> 'tradable')::boolean, true), v_synthetic, coalesce(p_dataset -> 'caveats', '[]')
  from public.datasets d where d.name = p_dataset ->> 'name'
  returning * into v_dataset;
  insert into public.market_bars (dataset_id, symbol, ts, open, high, low, close, volume)
  select v_dataset.dataset_id, v_dataset.symbols[b.symbol], '1970-01-01 00:00:00+00'::timestamptz + b.ts * interval '1 microsecond',
    nullif(b.open, 'nan'), nullif(b.high, 'nan'), nullif(b.low, 'nan'), nullif(b.close, 'nan'), nullif(b.volume, 'nan')
  from unnest(p_symbol, p_ts, p_open, p_high, p_low, p_close, p_volume) as b (symbol, ts, open, high, low, close, volume);
  return next v_dataset;
end
$$;
revoke execute on function public.import_dataset(jsonb, integer[], bigint[], float8[], float8[], float8[], float8[], float8[]) from public, anon, authenticated;
grant execute on function public.import_dataset(jsonb, integer[], bigint[], float8[], float8[], float8[], float8[], float8[]) to service_role;
