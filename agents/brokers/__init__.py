"""Brokers behind one protocol: see :mod:`agents.brokers.broker`."""
