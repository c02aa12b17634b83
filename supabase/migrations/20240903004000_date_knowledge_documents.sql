-- When a document, and what became of it, could be known. Exists so that a decision that is replayed finds what it could have found then,
-- and neither a later document nor the outcome of an earlier one.

alter table public.knowledge_documents add column if not exists known_at timestamptz;
update public.knowledge_documents set known_at = created_at where known_at is null;
alter table public.knowledge_documents alter column known_at set default now(), alter column known_at set not null;
alter table public.knowledge_documents add column if not exists outcome jsonb
  check (jsonb_typeof(outcome) = 'object' and octet_length(outcome::text) <= 1048576);
alter table public.knowledge_documents add column if not exists outcome_known_at timestamptz
  constraint knowledge_documents_outcome_is_dated check ((outcome is null) = (outcome_known_at is null));
comment on column public.knowledge_documents.known_at is 'Since when it could be known. A search as of an earlier time does not see it.';
comment on column public.knowledge_documents.outcome is 'What became of it, written once. A search as of a time before outcome_known_at does not see it.';

-- The documents nearest to a vector of the same embedder, nearest first. The filter is what their metadata must contain; without
-- p_as_of everything is known.
drop function if exists public.match_knowledge_documents(extensions.vector, integer, text, public.knowledge_collection, jsonb);
create or replace function public.match_knowledge_documents(
  query_embedding extensions.vector(1536), match_count integer, p_embedder text, p_collections text[] default null, filter jsonb default '{}',
  p_as_of timestamptz default null)
returns table (doc_id text, collection public.knowledge_collection, document_text text, metadata jsonb, known_at timestamptz, outcome jsonb,
  outcome_known_at timestamptz, distance float8)
language plpgsql stable security invoker set search_path = '' as $$
declare
  v_collections public.knowledge_collection[] := p_collections;
begin
  if (match_count between 1 and 1000 and btrim(p_embedder) <> '' and extensions.vector_dims(query_embedding) = 1536) is not true then
    raise exception 'match_count must be in 1..1000, p_embedder named and query_embedding 1536 wide' using errcode = 'invalid_parameter_value';
  end if;
  -- The index holds all embedders, collections and times: go on past those that do not count until there are enough.
  perform pg_catalog.set_config('hnsw.iterative_scan', 'strict_order', true);
  perform pg_catalog.set_config('hnsw.max_scan_tuples', '2147483647', true);
  perform pg_catalog.set_config('hnsw.scan_mem_multiplier', '100', true);
  return query
    select k.doc_id, k.collection, k.document_text, k.metadata, k.known_at,
      case when p_as_of is null or k.outcome_known_at <= p_as_of then k.outcome end,
      case when p_as_of is null or k.outcome_known_at <= p_as_of then k.outcome_known_at end,
      (k.embedding operator(extensions.<=>) query_embedding)::float8
    from public.knowledge_documents k
    where k.embedder = p_embedder and (v_collections is null or k.collection = any (v_collections)) and (p_as_of is null or k.known_at <= p_as_of)
      and k.metadata @> coalesce(filter, '{}')
    order by k.embedding operator(extensions.<=>) query_embedding
    limit match_count;
end
$$;

create or replace function public.count_knowledge_documents() returns table (embedder text, n bigint)
language sql stable security invoker set search_path = '' as $$
  select k.embedder, count(*) from public.knowledge_documents k group by k.embedder order by k.embedder
$$;

revoke execute on function public.match_knowledge_documents(extensions.vector, integer, text, text[], jsonb, timestamptz) from public, anon, authenticated;
grant execute on function public.match_knowledge_documents(extensions.vector, integer, text, text[], jsonb, timestamptz) to service_role;
revoke execute on function public.count_knowledge_documents() from public, anon, authenticated;
grant execute on function public.count_knowledge_documents() to service_role;
