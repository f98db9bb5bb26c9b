"""A containerised multi-hop VPN: a WireGuard entry chained to exits of several kinds.

This module stays free of imports: the runtime in the containers loads it too.
"""

__version__ = "0.1.0"
