-- Bounds the JSON of the research tables as that of the others is, so that one runaway value is refused by the name of its column rather
-- than kept, copied to every reader and dumped with every backup. Rows that are there already stay as they are.

do $$
declare
  v_table text;
  v_column text;
  v_bytes integer;
  v_name text;
begin
  for v_table, v_column, v_bytes in
    values ('signal_embeddings', 'label', 1048576), ('signal_embeddings', 'meta', 1048576), ('embedding_jobs', 'windows', 1048576),
      ('embedding_jobs', 'metadata', 1048576), ('feature_registry', 'meta', 1048576), ('trials', 'config', 1048576),
      ('backtest_results', 'config', 1048576), ('backtest_results', 'metrics', 1048576), ('backtest_results', 'artifacts', 1048576),
      ('datasets', 'caveats', 1048576), ('research_runs', 'request', 1048576), ('research_runs', 'budget', 1048576),
      ('research_runs', 'usage', 1048576), ('tool_calls', 'arguments', 1048576), ('agent_seniority_history', 'criteria', 1048576),
      -- What grows with the number of trials of a run, or over many runs.
      ('research_runs', 'report', 67108864), ('tool_calls', 'result', 67108864), ('holdout_openings', 'candidates', 67108864),
      ('holdout_openings', 'metrics', 67108864), ('agent_state', 'state', 67108864)
  loop
    v_name := v_table || '_' || v_column || '_fits';
    execute pg_catalog.format('alter table public.%I drop constraint if exists %I', v_table, v_name);
    execute pg_catalog.format('alter table public.%I add constraint %I check (octet_length(%I::text) <= %s) not valid',
      v_table, v_name, v_column, v_bytes);
  end loop;
end
$$;
