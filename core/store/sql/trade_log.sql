-- The trade log in a SQLite file: the columns and rules of `public.trades`, in the words SQLite has.

-- name: schema
create table if not exists trades (
  trade_id text primary key,
  signal_id text,
  context_key text not null check (context_key = category || '|' || regime || '|' || vix_band),
  category text not null check (category in
    ('supplier_disruption', 'positive_news', 'earnings_surprise', 'regulatory_action', 'macro_shift', 'neutral')),
  regime text not null check (regime in ('bull', 'bear', 'sideways', 'unknown')),
  vix_band text not null check (vix_band in ('low', 'medium', 'high', 'extreme')),
  confidence real not null check (confidence between 0 and 1),
  position_pct real not null check (position_pct between 0 and 1),
  is_exploration integer not null default 0 check (is_exploration in (0, 1)),
  symbol text not null check (symbol <> '' and symbol = upper(symbol)),
  side text not null check (side in ('buy', 'sell')),
  client_order_id text not null unique,
  order_id text,
  qty real not null default 0 check (qty >= 0),
  fill_price real check (fill_price > 0),
  stop_loss real check (stop_loss > 0),
  take_profit real check (take_profit > 0),
  commission real not null default 0,
  exit_price real check (exit_price > 0),
  pnl_pct real,
  net_pnl_pct real,
  hit integer check (hit in (0, 1)),
  closed_at text,
  exit_reason text,
  paper_trading integer not null default 1 check (paper_trading in (0, 1)),
  voided integer not null default 0 check (voided in (0, 1)),
  recorded_at text not null,
  check ((qty > 0) = (fill_price is not null)),
  check ((hit is null) = (pnl_pct is null) and (hit is null) = (closed_at is null)),
  check (net_pnl_pct is null or hit is (net_pnl_pct > 0)),
  check (paper_trading or not is_exploration)
) strict;
create index if not exists trades_context_key on trades (context_key);
create index if not exists trades_symbol on trades (symbol, recorded_at);
create view if not exists trade_hit_rates as
  select context_key, category, regime, vix_band,
    count(*) as total_trades,
    count(hit) as closed_trades,
    avg(hit) as hit_rate,
    avg(pnl_pct) as avg_pnl_pct,
    avg(coalesce(net_pnl_pct, pnl_pct)) filter (where hit) as avg_win_pct,
    avg(coalesce(net_pnl_pct, pnl_pct)) filter (where not hit) as avg_loss_pct,
    avg(coalesce(net_pnl_pct, pnl_pct)) filter (where hit)
      / nullif(-avg(coalesce(net_pnl_pct, pnl_pct)) filter (where not hit), 0) as payoff_ratio
  from trades where not voided group by context_key, category, regime, vix_band;

-- name: insert
insert into trades (trade_id, signal_id, context_key, category, regime, vix_band, confidence, position_pct, is_exploration, symbol, side,
  client_order_id, stop_loss, take_profit, paper_trading, recorded_at)
values (:trade_id, :signal_id, :context_key, :category, :regime, :vix_band, :confidence, :position_pct, :is_exploration, :symbol, :side,
  :client_order_id, :stop_loss, :take_profit, :paper_trading, :recorded_at)
returning *;

-- name: enter
update trades set order_id = coalesce(:order_id, order_id), qty = :qty, fill_price = :fill_price, commission = :commission
where client_order_id = :client_order_id and hit is null and not voided
returning *;

-- name: close
update trades set exit_price = :exit_price, exit_reason = :exit_reason, closed_at = :closed_at, commission = :commission,
  pnl_pct = :pnl_pct, net_pnl_pct = :net_pnl_pct, hit = :hit
where trade_id = :trade_id
returning *;

-- name: void
update trades set voided = 1 where trade_id = :trade_id returning *;

-- name: get
select * from trades where trade_id = :trade_id;

-- name: list
select * from trades
where not voided and (:symbol is null or symbol = :symbol) and (not :open_only or hit is null)
order by recorded_at, trade_id;

-- name: hit_rates
select * from trade_hit_rates where :context_key is null or context_key = :context_key order by context_key;

-- name: count_closed
select count(*) as n from trades where hit is not null and not voided;

-- name: last_trade_at
select max(recorded_at) as at from trades where symbol = :symbol and not voided;
