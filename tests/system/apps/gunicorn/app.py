"""A WSGI app for Debian's gunicorn."""

import hashlib
from pathlib import Path

MARKER = (Path(__file__).resolve().parent / "marker").read_text().strip()


def app(environ, start_response):
    """`release MARKER`, and for a POST the SHA-256 of its body."""
    body = f"release {MARKER}\n"
    if environ["REQUEST_METHOD"] == "POST":
        body += hashlib.sha256(environ["wsgi.input"].read()).hexdigest() + "\n"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body.encode()]
