"""What happens around the research: events as they became known, drift, where artifacts come from, and live returns."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from core.errors import DataError
from core.provenance import sha256_of
from core.store.event_records import DriftEvent, Event, LivePerformance, ProvenanceEvent
from core.store.gateway import Gateway, Where
from core.store.records import Dataset
from core.store.trading_records import read_message


class EventMethods:
    """What the research store does with events of the world and of its own models."""

    gateway: Gateway

    def save_events(self, events: Sequence[Event], *, dataset: Dataset | None = None) -> int:
        """Store events once, all or none, and return how many were new.

        Parameters
        ----------
        dataset : Dataset, optional
            When given, an event of a symbol that it does not have is refused.

        Raises
        ------
        DataError
            If a symbol is foreign to `dataset`.
        StoreConflictError
            If an event of the same kind and payload is there with another symbol or time of occurrence.

        Notes
        -----
        An event is its kind and its payload: fetched again it changes nothing, and the time at which it first became known
        stays. Point-in-time research rests on that.
        """
        for event in events:
            if dataset is not None and event.symbol is not None and event.symbol not in dataset.symbols:
                raise DataError(
                    f"`Event.symbol` must be one of {dataset.name} ({', '.join(dataset.symbols)}), was {event.symbol!r}."
                )
        if not events:
            return 0
        rows = [{**event.to_dict(), "payload_sha256": sha256_of(dict(event.payload))} for event in events]
        return int(self.gateway.rpc("save_events", payload={"events": rows})[0]["save_events"])

    def load_events(self, *, as_of: datetime, kind: str | None = None, symbols: Sequence[str] | None = None) -> list[Event]:
        """Load what was known at a moment, in the order in which it became known.

        Parameters
        ----------
        as_of : datetime
            Only events with ``known_at <= as_of`` are returned; the researcher's role sees none past the earliest seal.
        symbols : sequence of str, optional
            Only events of these; those of no symbol are left out then.

        Raises
        ------
        DataError
            If `as_of` is naive.
        """
        if as_of.tzinfo is None:
            raise DataError(f"`as_of` must carry its zone, was the naive {as_of.isoformat()}; use UTC.")
        where: Where = {"known_at": ("lte", as_of)}
        if kind is not None:
            where = {**where, "kind": kind}
        if symbols is not None:
            where = {**where, "symbol": ("in", list(symbols))}
        rows = self.gateway.select("events", where=where, order=("known_at", "occurred_at", "event_id"))
        return [read_message(Event, row) for row in rows]

    def save_drift_event(self, event: DriftEvent) -> None:
        """Append that something drifted."""
        self.gateway.insert("drift_events", [event.to_dict()])

    def list_drift_events(self, metric: str | None = None, *, limit: int = 100) -> list[DriftEvent]:
        """Return the newest drift first."""
        where = None if metric is None else {"metric": metric}
        rows = self.gateway.select("drift_events", where=where, order=("-triggered_at", "drift_id"), limit=limit)
        return [read_message(DriftEvent, row) for row in rows]

    def save_provenance_event(self, event: ProvenanceEvent) -> None:
        """Append where something came from."""
        self.gateway.insert("provenance_events", [event.to_dict()])

    def list_provenance_events(
        self, *, source: str | None = None, artifact_sha256: str | None = None, limit: int = 100
    ) -> list[ProvenanceEvent]:
        """Return where things came from, newest first."""
        where: dict[str, str] = {}
        if source is not None:
            where["source"] = source
        if artifact_sha256 is not None:
            where["artifact_sha256"] = artifact_sha256
        rows = self.gateway.select("provenance_events", where=where, order=("-created_at", "provenance_id"), limit=limit)
        return [read_message(ProvenanceEvent, row) for row in rows]

    def save_live_performance(self, points: Sequence[LivePerformance]) -> int:
        """Append live returns, all or none, and return how many.

        Raises
        ------
        StoreConflictError
            If a strategy has a return of that time already.
        """
        rows = [{**point.to_dict(), "ts": point.ts} for point in points]
        return self.gateway.upsert("live_performance", rows, on_conflict=())

    def list_live_performance(self, strategy_id: str | None = None, *, since: datetime | None = None) -> list[LivePerformance]:
        """Return expected and realised returns of a strategy, or of all, oldest first."""
        where: Where = {} if strategy_id is None else {"strategy_id": strategy_id}
        if since is not None:
            where = {**where, "ts": ("gte", since)}
        rows = self.gateway.select("live_performance", where=where, order=("ts", "strategy_id"))
        return [read_message(LivePerformance, row) for row in rows]
