-- Roles, the vector extension and the guards every later table uses. Exists first so that policies have someone to name.

create schema if not exists extensions;
create extension if not exists vector with schema extensions;

do $$
begin
  if not exists (select from pg_catalog.pg_roles where rolname = 'anon') then
    create role anon nologin noinherit;
  end if;
  if not exists (select from pg_catalog.pg_roles where rolname = 'authenticated') then
    create role authenticated nologin noinherit;
  end if;
  if not exists (select from pg_catalog.pg_roles where rolname = 'service_role') then
    create role service_role nologin noinherit bypassrls;
  end if;
  if not exists (select from pg_catalog.pg_roles where rolname = 'researcher') then
    create role researcher nologin noinherit;
  end if;
  -- The migrating user acts as these; where it may already (Supabase reserves service_role), nothing is granted.
  if not pg_catalog.pg_has_role(current_user, 'service_role', 'SET') then
    execute pg_catalog.format('grant service_role to %I', current_user);
  end if;
  if not pg_catalog.pg_has_role(current_user, 'researcher', 'SET') then
    execute pg_catalog.format('grant researcher to %I', current_user);
  end if;
end
$$;

grant usage on schema public, extensions to anon, authenticated, service_role, researcher;
revoke create on schema public from public;
alter default privileges in schema public grant all on tables to service_role;
alter default privileges in schema public grant execute on functions to service_role;

create or replace function public.set_updated_at() returns trigger
language plpgsql set search_path = '' as $$
begin
  new.updated_at := pg_catalog.clock_timestamp();
  return new;
end
$$;
revoke execute on function public.set_updated_at() from public, anon, authenticated;

-- An append-only table refuses update, delete and truncate to everybody, its owner included.
create or replace function public.refuse_change() returns trigger
language plpgsql set search_path = '' as $$
begin
  raise exception '% is append-only: % is refused', tg_table_name, lower(tg_op) using errcode = 'restrict_violation';
end
$$;
revoke execute on function public.refuse_change() from public, anon, authenticated;
