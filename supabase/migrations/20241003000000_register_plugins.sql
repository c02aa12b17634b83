-- Plugin features enter the registry like expressions, and a run keeps the promoted features that it may build on, so that it goes on
-- with the same words after a crash, whatever was promoted in between.

alter table public.feature_registry alter column lookback drop not null;
comment on column public.feature_registry.lookback is 'Bars of history needed beyond the current one; null for all of history.';

alter table public.research_runs add column if not exists building_blocks jsonb not null default '{}';
comment on column public.research_runs.building_blocks is
  'Promoted features that an expression of this run may name: expression and hypothesis by name.';
alter table public.research_runs drop constraint if exists research_runs_building_blocks_fits;
alter table public.research_runs add constraint research_runs_building_blocks_fits check (octet_length(building_blocks::text) <= 1048576);
grant select (building_blocks) on public.research_runs to researcher;

-- Registers a feature once, whoever proposes it; proposing it again returns the row that is there.
create or replace function public.propose_feature(payload jsonb) returns setof public.feature_registry
language plpgsql security invoker set search_path = '' as $$
declare
  v_version integer;
begin
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('public.feature_registry'));
  if not exists (select from public.feature_registry f where f.expression_sha256 = payload ->> 'expression_sha256') then
    select coalesce(max(f.version), 0) + 1 into v_version from public.feature_registry f where f.name = payload ->> 'name';
    insert into public.feature_registry
      (name, version, kind, expression, expression_sha256, lookback, family, hypothesis, parents, run_id, meta)
    values (
      payload ->> 'name', v_version, coalesce(payload ->> 'kind', 'expression')::public.feature_kind, payload ->> 'expression',
      payload ->> 'expression_sha256', (payload ->> 'lookback')::integer, coalesce(payload ->> 'family', ''),
      coalesce(payload ->> 'hypothesis', ''),
      array(select pg_catalog.jsonb_array_elements_text(coalesce(payload -> 'parents', '[]'))::uuid),
      (payload ->> 'run_id')::uuid, coalesce(payload -> 'meta', '{}')
    );
  end if;
  return query select f.* from public.feature_registry f where f.expression_sha256 = payload ->> 'expression_sha256';
end
$$;
