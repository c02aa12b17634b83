"""The trading agents, one file each. They talk through :mod:`core.types` alone; only `pipeline` imports them all."""
