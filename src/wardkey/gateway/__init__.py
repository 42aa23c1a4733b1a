"""The gateway: verifies tokens before an application and tells it who asks in headers X-Auth-*.

``AsgiGateway`` and ``WsgiGateway`` are middleware; ``fastapi`` and ``flask`` are for those frameworks;
``python -m wardkey.gateway`` answers nginx and Envoy. The rules of tokens are those of the database, by the
same code, and the database verifies the same token again.
"""

from .asgi import AsgiGateway
from .headers import Identity
from .trust import KeysUnavailable, Trust
from .wsgi import WsgiGateway

__all__ = ["AsgiGateway", "Identity", "KeysUnavailable", "Trust", "WsgiGateway"]
