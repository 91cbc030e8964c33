"""How long tests wait for what comes: as long as it takes. Only what hangs is ended."""

LONG = 1500
"""Seconds. With every core kept busy by others a command of some seconds took more than five minutes."""
