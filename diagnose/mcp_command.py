"""`diagnose mcp`: serve the tool to an agent, over standard input and output or on the loopback address."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import EXIT_OK, ToolMissing, UsageError

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

TOKEN = "DIAGNOSE_MCP_TOKEN"
LOOPBACK = "127.0.0.1"
SHORTEST = 16


def run(roots: list[str], allow: str, http: bool, port: int) -> int:
    """Serve until the client leaves.

    Raises:
        ToolMissing: the SDK is not installed. UsageError: a root that is no folder, a token that can be guessed.
    """
    if find_spec("mcp") is None or find_spec("mcp.server.mcpserver") is None:
        raise ToolMissing("the MCP server needs the SDK, version 2", 'pip install "gpu-diagnose[mcp]"')
    from .mcp_server import build
    from .mcp_service import Service

    server = build(Service([Path(r) for r in roots] or [Path()], allow))
    if http:
        _serve(server, port)
    else:
        server.run("stdio")
    return EXIT_OK


def _serve(server: MCPServer[Any], port: int) -> None:
    """HTTP on the loopback address; the token comes from the environment or is made and shown once."""
    import uvicorn
    from mcp.server.transport_security import TransportSecuritySettings

    from .mcp_server import guarded

    token = os.environ.get(TOKEN, "")
    if token and len(token) < SHORTEST:
        raise UsageError(f"{TOKEN} is shorter than {SHORTEST} characters", "unset it to have one made")
    made = "" if token else secrets.token_urlsafe(24)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
    except (OSError, OverflowError) as err:
        listener.close()
        raise UsageError(f"port {port}: {err}", "--port 0 takes a free one") from err
    print(f"http://{LOOPBACK}:{listener.getsockname()[1]}/mcp", file=sys.stderr)
    if made:
        print(f"token, for this run: {made}  (set {TOKEN} to choose one)", file=sys.stderr)
    names = TransportSecuritySettings(
        allowed_hosts=[f"{LOOPBACK}:*", "localhost:*"],
        allowed_origins=[f"http://{LOOPBACK}:*", "http://localhost:*"],
    )
    app = guarded(server.streamable_http_app(host=LOOPBACK, transport_security=names), token or made)
    with listener:
        uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on")).run(sockets=[listener])
