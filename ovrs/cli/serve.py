r"""Show a model on a page: drop an image, type words, look at the map, download it.

The same process answers REST requests, and with --mcp it offers tools to agents; docs/serve.md shows both. It listens
on this machine only unless --host says otherwise. Whoever reaches the address can use it: there are no passwords.
Without --model, one that needs no training is fetched and used.

Examples:
    ovrs serve --model output/demo/gsnet
    ovrs serve --model gsnet-vitb16 --mcp --port 8000
    ovrs serve --config-file my/config.yaml --weights my/model_final.pth --max-megapixels 50
"""

from __future__ import annotations

import argparse

from ovrs.cli import add_model, model_configuration


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_model(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine)")
    parser.add_argument("--port", type=int, default=7860, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--mcp", action="store_true", help="offer tools to agents as well, at /mcp")
    parser.add_argument("--max-megabytes", type=float, default=200, help="of an upload (default: %(default)s)")
    parser.add_argument("--max-megapixels", type=float, default=25, help="of an image (default: %(default)s)")
    parser.add_argument("--queue", type=int, default=8, help="requests that may wait (default: %(default)s)")
    parser.add_argument("--sessions", type=int, default=4, help="images that are remembered (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Listen until Ctrl-C."""
    from ovrs.raster.options import require

    require("ovrs serve", "gradio", "mcp", "shapely", "pyogrio", "pyarrow", extra="serve")

    import logging
    import socket

    import uvicorn

    from ovrs.predictor import Predictor
    from ovrs.serve import Limits, Service
    from ovrs.serve.application import application

    logging.basicConfig(format="%(levelname)s: %(message)s")
    limits = Limits(
        megabytes=args.max_megabytes,
        megapixels=args.max_megapixels,
        waiting=args.queue,
        sessions=args.sessions,
    )
    service = Service(Predictor(model_configuration(args)), limits)
    app = application(service, args.host, mcp=args.mcp)
    family = socket.AF_INET6 if ":" in args.host else socket.AF_INET
    with socket.create_server((args.host, args.port), family=family) as listening:
        address = f"http://{args.host}:{listening.getsockname()[1]}"
        print(address + f", and for agents {address}/mcp" * args.mcp, flush=True)
        # Open pages keep their connections; Ctrl-C does not wait for people to close them. Errors are logged by us.
        config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=3)
        uvicorn.Server(config).run(sockets=[listening])
