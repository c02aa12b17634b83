-- Tokens and cost of every call to a language model.

create table if not exists public.llm_usage (
  usage_id uuid primary key default gen_random_uuid(),
  model text not null,
  role text not null,
  symbol text,
  run_id uuid references public.research_runs,
  response_id text,
  input_tokens bigint not null check (input_tokens >= 0),
  cached_tokens bigint not null default 0 check (cached_tokens >= 0),
  output_tokens bigint not null check (output_tokens >= 0),
  cost_usd numeric(12, 6) not null check (cost_usd >= 0),
  price_known boolean not null,
  recorded_at timestamptz not null default now(),
  created_at timestamptz not null default now()
);
create index if not exists llm_usage_run_id on public.llm_usage (run_id);

alter table public.llm_usage enable row level security;
revoke all on public.llm_usage from public, anon, authenticated;
grant all on public.llm_usage to service_role;
