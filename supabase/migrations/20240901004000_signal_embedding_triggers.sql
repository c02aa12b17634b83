-- Announces changed embeddings and new jobs to listeners: ids only, because a payload over 8,000 bytes would fail the insert itself.
-- One message a statement; when the ids would not fit, the message says how many there are and the listener asks the table.

create or replace function public.notify_ids() returns trigger
language plpgsql set search_path = '' as $$
declare
  v_count integer;
  v_ids text[];
begin
  execute pg_catalog.format('select count(*), (array_agg(%I::text))[1:100] from changed', tg_argv[0]) into v_count, v_ids;
  if v_count > 0 then
    perform pg_catalog.pg_notify(tg_table_name, pg_catalog.jsonb_build_object('count', v_count,
      'ids', case when v_count <= 100 then pg_catalog.to_jsonb(v_ids) end)::text);
  end if;
  return null;
end
$$;
revoke execute on function public.notify_ids() from public, anon, authenticated;
grant execute on function public.notify_ids() to service_role, researcher;

drop trigger if exists signal_embeddings_notify on public.signal_embeddings;
create trigger signal_embeddings_notify after insert on public.signal_embeddings
  referencing new table as changed for each statement execute function public.notify_ids('embedding_id');
drop trigger if exists signal_embeddings_notify_update on public.signal_embeddings;
create trigger signal_embeddings_notify_update after update on public.signal_embeddings
  referencing new table as changed for each statement execute function public.notify_ids('embedding_id');
drop trigger if exists embedding_jobs_notify on public.embedding_jobs;
create trigger embedding_jobs_notify after insert on public.embedding_jobs
  referencing new table as changed for each statement execute function public.notify_ids('job_id');
