-- Rows to look at after `supabase db reset`: the ticker map, and a small demonstration. Every signal of it has the source `demo`, and every
-- trade is on paper. Sowing it twice changes nothing.

insert into public.ticker_map (supplier_name, ticker, exchange) values
  ('Apple', 'AAPL', 'NASDAQ'),
  ('Microsoft', 'MSFT', 'NASDAQ'),
  ('NVIDIA', 'NVDA', 'NASDAQ'),
  ('Intel', 'INTC', 'NASDAQ'),
  ('Advanced Micro Devices', 'AMD', 'NASDAQ'),
  ('Tesla', 'TSLA', 'NASDAQ'),
  ('Boeing', 'BA', 'NYSE'),
  ('Caterpillar', 'CAT', 'NYSE'),
  ('Ford Motor', 'F', 'NYSE'),
  ('General Electric', 'GE', 'NYSE'),
  ('Johnson & Johnson', 'JNJ', 'NYSE'),
  ('JPMorgan Chase', 'JPM', 'NYSE'),
  ('Taiwan Semiconductor Manufacturing', 'TSM', 'NYSE'),
  ('Exxon Mobil', 'XOM', 'NYSE'),
  ('BASF', 'BAS', 'XETRA'),
  ('Bayer', 'BAYN', 'XETRA'),
  ('BMW', 'BMW', 'XETRA'),
  ('Continental', 'CON', 'XETRA'),
  ('Infineon Technologies', 'IFX', 'XETRA'),
  ('SAP', 'SAP', 'XETRA'),
  ('Siemens', 'SIE', 'XETRA'),
  ('Volkswagen', 'VOW3', 'XETRA')
on conflict (supplier_name, exchange) do nothing;

insert into public.signals (signal_id, source, source_key, headline, summary, published_at, category, severity, affected_tickers, supplier) values
  ('00000000-0000-4000-8000-000000000001', 'demo', '1', 'Chip maker raises its outlook', 'A demonstration.', '2024-03-04 14:30Z', 'positive_news',
    'high', '{NVDA}', 'NVIDIA'),
  ('00000000-0000-4000-8000-000000000002', 'demo', '2', 'Car maker wins a large order', 'A demonstration.', '2024-03-05 15:00Z', 'positive_news',
    'medium', '{F}', 'Ford Motor'),
  ('00000000-0000-4000-8000-000000000003', 'demo', '3', 'Supplier halts a plant after a fire', 'A demonstration.', '2024-03-06 16:00Z',
    'supplier_disruption', 'critical', '{IFX}', 'Infineon Technologies'),
  ('00000000-0000-4000-8000-000000000004', 'demo', '4', 'Regulator opens an inquiry', 'A demonstration.', '2024-03-07 13:00Z', 'regulatory_action',
    'medium', '{BA}', 'Boeing')
on conflict (source, source_key) do nothing;

insert into public.filtered_signals (signal_id, compliance_score, severity, list_version) values
  ('00000000-0000-4000-8000-000000000001', 1, 'high', 'demo'),
  ('00000000-0000-4000-8000-000000000002', 1, 'medium', 'demo'),
  ('00000000-0000-4000-8000-000000000003', 1, 'critical', 'demo')
on conflict (signal_id) do nothing;

insert into public.macro_context (regime, vix, sp500_1m_return, sector_momentum, suppress, as_of) values
  ('bull', 13.5, 0.031, '{"XLK": 0.045, "XLE": 0.012, "XLF": 0.02, "XLV": 0.008, "XLI": 0.017, "XLB": 0.011}', false, '2024-03-04 14:00Z')
on conflict (as_of) do nothing;

insert into public.trades (trade_id, signal_id, context_key, confidence, position_pct, symbol, side, client_order_id, qty, fill_price, stop_loss,
  take_profit, commission, exit_price, pnl_pct, net_pnl_pct, hit, closed_at, exit_reason, is_exploration, recorded_at) values
  ('00000000-0000-4000-8000-000000000011', '00000000-0000-4000-8000-000000000001', 'positive_news|bull|low', 0.62, 0.02, 'NVDA', 'buy', 'demo-1',
    2, 850, 824.5, 901, 2, 901, 0.06, 0.06 - 2 / 1700.0, true, '2024-03-06 18:00Z', 'take_profit', true, '2024-03-04 14:35Z'),
  ('00000000-0000-4000-8000-000000000012', '00000000-0000-4000-8000-000000000002', 'positive_news|bull|low', 0.62, 0.02, 'F', 'buy', 'demo-2',
    160, 12.5, 12.125, 13.25, 2, 12.125, -0.03, -0.03 - 2 / 2000.0, false, '2024-03-07 15:00Z', 'stop_loss', true, '2024-03-05 15:05Z')
on conflict (trade_id) do nothing;

insert into public.decision_traces (trace_id, signal_id, symbol, decided_at, status, stages, killed_at_stage, kill_reason, binding_constraint, confidence,
  position_pct, order_id, pnl_pct) values
  ('demo-1', '00000000-0000-4000-8000-000000000001', 'NVDA', '2024-03-04 14:35Z', 'closed', '[{"stage": "hades", "passed": true, "note": "clean"},
    {"stage": "ares", "passed": true, "note": "filled"}]', null, null, null, 0.62, 0.02, 'demo-1', 0.06),
  ('demo-2', '00000000-0000-4000-8000-000000000002', 'F', '2024-03-05 15:05Z', 'closed', '[{"stage": "hades", "passed": true, "note": "clean"},
    {"stage": "ares", "passed": true, "note": "filled"}]', null, null, null, 0.62, 0.02, 'demo-2', -0.03),
  ('demo-3', '00000000-0000-4000-8000-000000000003', 'IFX', '2024-03-06 16:05Z', 'killed', '[{"stage": "hades", "passed": true, "note": "clean"},
    {"stage": "limits", "passed": false, "note": "three positions in the sector"}]', 'limits', 'three positions in the sector', 'sector_cap', null,
    null, null, null)
on conflict (trace_id) do nothing;

insert into public.portfolio_state (equity, peak_equity, drawdown_pct, cash, open_positions) values (100038, 100102, (64 / 100102.0)::float8, 100038, 0)
on conflict (singleton) do nothing;
insert into public.equity_snapshots (equity, peak, drawdown_pct, recorded_at) values
  (100000, 100000, 0, '2024-03-04 14:00Z'),
  (100102, 100102, 0, '2024-03-06 18:00Z'),
  (100038, 100102, (64 / 100102.0)::float8, '2024-03-07 15:00Z')
on conflict (recorded_at) do nothing;
