"""The embedded server: a private PostgreSQL with the extension, keeper and scribe, in one state directory.

``Cluster(Home.locate()).start()`` makes what is missing, repairs what a crash left, starts what does not
run; calling it again does nothing. ``stop()`` leaves no process.
"""

from __future__ import annotations

from .cluster import Cluster, Status
from .home import Home

__all__ = ["Cluster", "Home", "Status"]
