"""`pvc serve`: an OpenAI-compatible server with pictures, videos and live streams."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from pvc.cli.options import Dtype, DtypeOption
from pvc.cli.progress import status
from pvc.errors import UsageError
from pvc.extras import require

if TYPE_CHECKING:
    from pvc.engine.engine import Engine

VLLM_MEDIA = {"image": 16, "video": 4}  # of one request
SMALL = 100_000_000  # parameters
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    model: Annotated[Path | None, typer.Option(help="Model directory; by default the bundled model.")] = None,
    name: Annotated[str | None, typer.Option(help="What clients call the model; by default its directory.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at.")] = 8000,
    keys: Annotated[Path | None, typer.Option(help="File of API keys, one a line; or set PVC_API_KEYS.")] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Host that media may be fetched from; may be given several times.")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Directory that file: addresses may name files in.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Answers that are generated together.")] = 16,
    queue: Annotated[int, typer.Option(min=1, help="Requests that may wait.")] = 128,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer, whatever is asked for.")] = 1024,
    dtype: DtypeOption = Dtype.auto,
    engine: Annotated[str, typer.Option(help="pvc, or vllm: vLLM's own server on the same checkpoint.")] = "pvc",
    unsafe_decode: Annotated[
        bool, typer.Option("--unsafe-decode", help="Decode even where workers cannot be sandboxed.")
    ] = False,
) -> None:
    """Serve a model to OpenAI's clients, with /v1/chat/completions, /v1/streams, /health, /ready and /metrics."""
    if engine not in ("pvc", "vllm"):
        raise UsageError(f"--engine must be pvc or vllm, not {engine!r}")
    if engine == "vllm":
        for option, given in (("--root", root), ("--allow-host", allow_host)):
            if given:
                raise UsageError(f"{option} is for --engine pvc: vLLM's server has rules of its own")
        _become_vllm(model, name, host, port, read_keys(keys), batch, dtype, max_new_tokens)
    for module in ("fastapi", "uvicorn", "sse_starlette", "prometheus_client", "httpx"):
        require(module, "serve")
    own = read_keys(keys)
    hosts = tuple(_host(given) for given in allow_host or ())
    if root is not None and not root.is_dir():
        raise UsageError(f"--root {root} is not a directory")
    from pvc.server.launch import listener
    from pvc.server.launch import serve as run

    at = listener(host, port)  # before anything is loaded
    with status("Loading"):
        from pvc.server.app import create_app
        from pvc.server.settings import Settings

        settings = Settings(
            name=name,
            keys=own,
            hosts=hosts,
            root=None if root is None else root.resolve(),
            batch=batch,
            queue=queue,
            unsafe_decode=unsafe_decode,
            max_new_tokens=max_new_tokens,
        )
        app = create_app(_load(model, dtype), settings)
    if host not in LOOPBACK and not own:
        say(f"warning: {host} is open to others, and no API key is needed (--keys)")
    say(_banner(app.state, settings))
    place = f"http://{'[' + host + ']' if ':' in host else host}:{at.getsockname()[1]}/v1"
    run(app, at, say, f"ready at {place} (Ctrl-C ends it)")


def _load(model: Path | None, dtype: str) -> Engine:
    """The model, with the threads that it is to have."""
    import torch

    from pvc.engine.engine import Engine

    made = Engine.load(model, dtype=dtype)
    # A small model's threads wait for each other again and again, and one that is put off by the event loop or a
    # decoder holds up all: it leaves them a core. A large one computes for longer (benchmarks/batching.py).
    if "OMP_NUM_THREADS" not in os.environ and made.model.num_parameters() < SMALL:
        torch.set_num_threads(max(1, torch.get_num_threads() - 1))
    return made


def say(text: str) -> None:
    """Tell whoever runs the server."""
    typer.echo(f"pvc: {text}", err=True)


def _banner(state: Any, settings: Any) -> str:
    """What is served, where it runs, and what it takes."""
    weights = next(state.parts.engine.model.parameters())
    below = [f"file: below {settings.root}"] if settings.root else []
    sources = ", ".join(["data:", *settings.hosts, *below])
    keys = f"{len(settings.keys)} API keys" if settings.keys else "no API key needed"
    kind = str(weights.dtype).removeprefix("torch.")
    return f"{state.name} on {weights.device} in {kind}; media from {sources}; {keys}"


def _host(given: str) -> str:
    """A host's name as it is compared. Raises UsageError for what is none."""
    name = given.rstrip(".").lower()
    if not re.fullmatch(r"(?=.{1,253}$)[a-z0-9_-]+(\.[a-z0-9_-]+)*", name) or re.fullmatch(r"[0-9.]+", name):
        raise UsageError(f"--allow-host {given}: a name is meant, such as images.example.com, without a port or a path")
    if name == "localhost":
        raise UsageError(f"--allow-host {given}: addresses that are not global are never fetched from")
    return name


def _become_vllm(
    model: Path | None,
    name: str | None,
    host: str,
    port: int,
    keys: tuple[str, ...],
    batch: int,
    dtype: str,
    max_new_tokens: int,
) -> NoReturn:
    """Replace this process by vLLM's server, with limits that long videos fit into."""
    require("vllm", "vllm")
    from pvc.checkpoint.files import CheckpointFiles
    from pvc.checkpoint.loading import load_config, load_processor

    files = CheckpointFiles(model)
    config, processor = load_config(files), load_processor(files)
    longest = min(getattr(config.text_config, "max_position_embeddings", None) or 32768, 32768)
    # Frames as the checkpoint takes them, sampled and sized by our reader (pvc.integrations.vllm).
    video = {"num_frames": processor.video_processor.num_frames, "size": config.vision_config.image_size[0]}
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(files.directory)]
    command += [
        "--served-model-name",
        name or (files.directory.name if model else "pvc-nano"),
        "--host",
        host,
        "--port",
        str(port),
    ]
    command += ["--max-model-len", str(longest), "--max-num-seqs", str(batch)]
    # A video's visual tokens are placed in one piece: a step must have room for the longest prompt.
    command += ["--max-num-batched-tokens", str(longest), "--limit-mm-per-prompt", json.dumps(VLLM_MEDIA)]
    command += ["--media-io-kwargs", json.dumps({"video": video})]
    # vLLM cuts every request to what the generation config says: 48 for the bundled checkpoint.
    command += ["--override-generation-config", json.dumps({"max_new_tokens": max_new_tokens})]
    if not torch_has_gpu():
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")
        dtype = "bfloat16" if dtype == "auto" else dtype
    command += ["--dtype", dtype]
    if len(keys) > 1:
        raise UsageError("--engine vllm takes one API key")
    if keys:
        os.environ["VLLM_API_KEY"] = keys[0]  # not on the command line, which everybody on the machine can read
    if host not in LOOPBACK and not keys:
        say(f"warning: {host} is open to others, and no API key is needed (--keys)")
    say(
        "warning: vLLM's server trusts its callers: text may spell control tokens, and it fetches addresses and "
        "decodes media in its own process (docs/serve.md)"
    )
    os.execv(sys.executable, command)


def torch_has_gpu() -> bool:
    """Whether there is one that torch can use."""
    import torch

    return torch.cuda.is_available()


def read_keys(path: Path | None) -> tuple[str, ...]:
    """API keys of a file, or of the environment. Raises UsageError for a file that has none."""
    if path is None:
        # Taken out: what this process starts needs none of it.
        given = os.environ.pop("PVC_API_KEYS", None)
        told = tuple((given or "").replace(",", " ").split())
        if given is not None and not told:
            raise UsageError("PVC_API_KEYS is set and holds no key")
        if any(not re.fullmatch("[!-~]{16,}", key) for key in told):
            raise UsageError("a key in PVC_API_KEYS has less than 16 characters, or some that do not fit into a header")
        return told
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read --keys {path}: {getattr(error, 'strerror', None) or 'not text'}") from error
    found = tuple(line for line in lines if line and not line.startswith("#"))
    if not found:
        raise UsageError(f"--keys {path} holds no key")
    for number, line in enumerate(lines, 1):
        if line in found and not re.fullmatch("[!-~]{16,}", line):
            raise UsageError(f"--keys {path}, line {number}: a key has at least 16 plain characters and no spaces")
    return found


__all__ = ["read_keys", "serve"]
