"""A WSGI app for the gunicorn of its own virtual environment."""

import sys
from pathlib import Path

MARKER = (Path(__file__).resolve().parent / "marker").read_text().strip()


def app(environ, start_response):
    """`release MARKER from THE ENVIRONMENT`."""
    body = f"release {MARKER} from {sys.prefix}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
