-- What the gateway over HTTP needs: who it acts as, what types a name has, and a way to write more rows than one request carries
-- in one transaction.

-- PostgREST switches to the role a token names; on Supabase it connects as `authenticator`.
do $$
begin
  if exists (select from pg_catalog.pg_roles where rolname = 'authenticator') then
    grant researcher to authenticator;
  end if;
end
$$;

create or replace function public.acting_role() returns text
language sql stable security invoker set search_path = '' as $$
  select current_user::text
$$;

-- Columns (`column`) and primary key (`key`) of a table or view; what a function answers (`result`), whether as rows (`rows`), and
-- whether calling it twice is the same as once (`stable`). Types by their name in the catalogue, an enumeration as text.
create or replace function public.describe_name(p_name text) returns table (kind text, name text, type text)
language sql stable security invoker set search_path = '' as $$
  with relation as (
    select pg_catalog.to_regclass(pg_catalog.format('public.%I', p_name))::oid as oid
  ), function as (
    select p.* from pg_catalog.pg_proc p where p.pronamespace = 'public'::regnamespace and p.proname = p_name
  ), found as (
    select 'column' as kind, a.attname::text as name, a.atttypid as type, a.attnum::integer as position
    from relation r join pg_catalog.pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
    union all
    select 'key', a.attname::text, a.atttypid, pg_catalog.array_position(i.indkey::smallint[], a.attnum)
    from relation r
    join pg_catalog.pg_index i on i.indrelid = r.oid and i.indisprimary
    join pg_catalog.pg_attribute a on a.attrelid = r.oid and a.attnum = any (i.indkey::smallint[])
    union all
    select 'result', a.attname::text, a.atttypid, a.attnum::integer
    from function f
    join pg_catalog.pg_type t on t.oid = f.prorettype and t.typtype = 'c'
    join pg_catalog.pg_attribute a on a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
    union all
    select 'result', x.name, x.type, x.position::integer
    from function f, unnest(f.proallargtypes, f.proargnames, f.proargmodes) with ordinality as x (type, name, mode, position)
    where x.mode in ('t', 'o', 'b')
    union all
    select 'result', f.proname::text, f.prorettype, 1
    from function f join pg_catalog.pg_type t on t.oid = f.prorettype and t.typtype <> 'c' and f.proallargtypes is null
    union all
    select 'rows', f.proname::text, f.prorettype, 1 from function f where f.proretset
    union all
    select 'stable', f.proname::text, f.prorettype, 1 from function f where f.provolatile <> 'v'
  )
  select f.kind, f.name, case when t.typtype = 'e' then 'text' else t.typname::text end
  from found f join pg_catalog.pg_type t on t.oid = f.type
  order by f.kind, f.position
$$;

create table if not exists public.write_batches (
  batch_id uuid not null,
  part integer not null check (part >= 0),
  written_by text not null default current_user,
  rows jsonb not null check (jsonb_typeof(rows) = 'array'),
  created_at timestamptz not null default now(),
  primary key (batch_id, part)
);
comment on table public.write_batches is 'Parts of a batch on their way to a table: write_batch takes them all, or nobody does.';
create index if not exists write_batches_created_at on public.write_batches (created_at);
alter table public.write_batches enable row level security;
revoke all on public.write_batches from public, anon, authenticated;
grant all on public.write_batches to service_role;
grant select, insert, delete on public.write_batches to researcher;
drop policy if exists researcher_reads_its_own on public.write_batches;
create policy researcher_reads_its_own on public.write_batches for select to researcher using (written_by = current_user);
drop policy if exists researcher_adds_its_own on public.write_batches;
create policy researcher_adds_its_own on public.write_batches for insert to researcher with check (written_by = current_user);
drop policy if exists researcher_takes_its_own on public.write_batches;
create policy researcher_takes_its_own on public.write_batches for delete to researcher using (written_by = current_user);

-- Moves the parts of a batch into their table, in one transaction and with the caller's rights; parts that nobody fetched in a day go.
create or replace function public.write_batch(
  p_batch_id uuid, p_parts integer, p_table text, p_columns text[], p_on_conflict text[] default null)
returns bigint
language plpgsql security invoker set search_path = '' set statement_timeout = '300s' as $$
declare
  v_columns text;
  v_action text := '';
  v_rows jsonb;
  v_parts integer := 0;
  v_written bigint := 0;
  v_count bigint;
begin
  if pg_catalog.to_regclass(pg_catalog.format('public.%I', p_table)) is null then
    raise exception 'relation "%" does not exist', p_table using errcode = 'undefined_table';
  end if;
  select pg_catalog.string_agg(pg_catalog.quote_ident(c), ', ' order by n) into v_columns from unnest(p_columns) with ordinality as x (c, n);
  if p_on_conflict is not null then
    select pg_catalog.format(' on conflict (%s) do %s',
      (select pg_catalog.string_agg(pg_catalog.quote_ident(c), ', ') from unnest(p_on_conflict) as k (c)),
      coalesce('update set ' || pg_catalog.string_agg(pg_catalog.format('%1$I = excluded.%1$I', c), ', '), 'nothing'))
    into v_action from unnest(p_columns) as x (c) where c <> all (p_on_conflict);
  end if;
  for v_rows in
    with taken as (delete from public.write_batches b where b.batch_id = p_batch_id returning b.part, b.rows)
    select t.rows from taken t order by t.part
  loop
    execute pg_catalog.format('insert into public.%1$I (%2$s) select %2$s from pg_catalog.jsonb_populate_recordset(null::public.%1$I, $1)%3$s',
      p_table, v_columns, v_action) using v_rows;
    get diagnostics v_count = row_count;
    v_written := v_written + v_count;
    v_parts := v_parts + 1;
  end loop;
  if v_parts <> p_parts then
    raise exception 'batch % has % of its % parts: write it anew', p_batch_id, v_parts, p_parts using errcode = 'no_data_found';
  end if;
  delete from public.write_batches b where b.created_at < now() - interval '1 day';
  return v_written;
end
$$;

revoke execute on function public.acting_role(), public.describe_name(text), public.write_batch(uuid, integer, text, text[], text[])
  from public, anon, authenticated;
grant execute on function public.acting_role(), public.describe_name(text), public.write_batch(uuid, integer, text, text[], text[])
  to service_role, researcher;
