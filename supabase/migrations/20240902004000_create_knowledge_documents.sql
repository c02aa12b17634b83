-- What the agents read and remember in words: literature, knowledge, past decisions, found by meaning. Exists with the embedder named in
-- every row, because distances between vectors of two embedders mean nothing.

do $$
begin
  if to_regtype('public.knowledge_collection') is null then
    create type public.knowledge_collection as enum ('knowledge', 'decisions', 'literature');
  end if;
end
$$;

create table if not exists public.knowledge_documents (
  doc_id text primary key check (btrim(doc_id) <> ''),
  collection public.knowledge_collection not null,
  document_text text not null check (btrim(document_text) <> '' and octet_length(document_text) <= 1048576),
  metadata jsonb not null default '{}' check (jsonb_typeof(metadata) = 'object' and octet_length(metadata::text) <= 1048576),
  embedder text not null check (btrim(embedder) <> ''),
  embedding extensions.vector(1536) not null check (extensions.vector_dims(embedding) = 1536),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
create index if not exists knowledge_documents_collection on public.knowledge_documents (collection, embedder);
create index if not exists knowledge_documents_hnsw on public.knowledge_documents using hnsw (embedding extensions.vector_cosine_ops);

-- The documents nearest to a vector of the same embedder, nearest first. The filter is what their metadata must contain.
create or replace function public.match_knowledge_documents(
  query_embedding extensions.vector(1536), match_count integer, p_embedder text, p_collection public.knowledge_collection default null,
  filter jsonb default '{}')
returns table (doc_id text, collection public.knowledge_collection, document_text text, metadata jsonb, distance float8)
language plpgsql stable security invoker set search_path = '' as $$
begin
  if (match_count between 1 and 1000 and btrim(p_embedder) <> '' and extensions.vector_dims(query_embedding) = 1536) is not true then
    raise exception 'match_count must be in 1..1000, p_embedder named and query_embedding 1536 wide' using errcode = 'invalid_parameter_value';
  end if;
  -- The index holds all embedders and collections: go on past those that do not count until there are enough.
  perform pg_catalog.set_config('hnsw.iterative_scan', 'strict_order', true);
  perform pg_catalog.set_config('hnsw.max_scan_tuples', '2147483647', true);
  perform pg_catalog.set_config('hnsw.scan_mem_multiplier', '100', true);
  return query
    select k.doc_id, k.collection, k.document_text, k.metadata, (k.embedding operator(extensions.<=>) query_embedding)::float8
    from public.knowledge_documents k
    where k.embedder = p_embedder and (p_collection is null or k.collection = p_collection) and k.metadata @> coalesce(filter, '{}')
    order by k.embedding operator(extensions.<=>) query_embedding
    limit match_count;
end
$$;

alter table public.knowledge_documents enable row level security;
revoke all on public.knowledge_documents from public, anon, authenticated;
grant all on public.knowledge_documents to service_role;
drop trigger if exists set_updated_at on public.knowledge_documents;
create trigger set_updated_at before update on public.knowledge_documents for each row execute function public.set_updated_at();
revoke execute on function public.match_knowledge_documents(extensions.vector, integer, text, public.knowledge_collection, jsonb) from public, anon, authenticated;
grant execute on function public.match_knowledge_documents(extensions.vector, integer, text, public.knowledge_collection, jsonb) to service_role;
