"""`pvc serve`: an OpenAI-compatible server with pictures, videos and live streams."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from pvc.cli.progress import status
from pvc.errors import UsageError
from pvc.extras import require

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    model: Annotated[Path | None, typer.Option(help="Model directory; by default the bundled model.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at.")] = 8000,
    keys: Annotated[Path | None, typer.Option(help="File of API keys, one a line; or set PVC_API_KEYS.")] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Host that pictures may be fetched from; may be given several times.")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Directory that file: addresses may name files in.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Answers that are generated together.")] = 16,
    queue: Annotated[int, typer.Option(min=1, help="Requests that may wait.")] = 128,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU cores for the model; by default all.")] = None,
    unsafe_decode: Annotated[
        bool, typer.Option("--unsafe-decode", help="Decode even where decoders cannot be cut off from the network.")
    ] = False,
) -> None:
    """Serve a model to OpenAI's clients, with /v1/chat/completions, /v1/streams, /health, /ready and /metrics."""
    for module in ("fastapi", "uvicorn", "sse_starlette", "prometheus_client", "httpx"):
        require(module, "serve")
    own = read_keys(keys)
    if root is not None and not root.is_dir():
        raise UsageError(f"--root {root} is not a directory")
    with status("Loading"):
        import torch

        from pvc.engine.engine import Engine
        from pvc.server.app import create_app
        from pvc.server.run import serve as run
        from pvc.server.settings import Settings

        if threads is not None:
            torch.set_num_threads(threads)
        settings = Settings(
            keys=own,
            hosts=tuple(name.rstrip(".").lower() for name in allow_host or ()),
            root=None if root is None else root.resolve(),
            batch=batch,
            queue=queue,
            unsafe_decode=unsafe_decode,
        )
        app = create_app(Engine.load(model), settings)
    if host not in LOOPBACK and not own:
        typer.echo(f"pvc: warning: {host} is open to others, and no API key is needed (--keys)", err=True)
    typer.echo(f"http://{'[' + host + ']' if ':' in host else host}:{port}/v1 (Ctrl-C ends it)", err=True)
    run(app, host, port)


def read_keys(path: Path | None) -> tuple[str, ...]:
    """API keys of a file, or of the environment. Raises UsageError for a file that has none."""
    if path is None:
        return tuple(os.environ.get("PVC_API_KEYS", "").replace(",", " ").split())
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read --keys {path}: {getattr(error, 'strerror', None) or 'not text'}") from error
    found = tuple(line for line in lines if line and not line.startswith("#"))
    if not found:
        raise UsageError(f"--keys {path} holds no key")
    return found


__all__ = ["read_keys", "serve"]
