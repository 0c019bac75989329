"""The server of Git LFS that belongs to a repository: the batch API and the contents (git-lfs, `docs/api/batch.md`), for those who come
with the token that `git-lfs-authenticate` gives out over ssh."""

import http.server
import json
import pathlib
import sys

directory, port, token = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
HEADER = {"Authorization": f"Bearer {token}"}


class Handler(http.server.BaseHTTPRequestHandler):
    def is_known(self):
        if self.headers.get("Authorization") == HEADER["Authorization"]:
            return True
        self.answer(401, b'{"message": "the token is missing or wrong"}')
        return False

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.git-lfs+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.is_known():
            return
        objects = []
        for content in asked["objects"]:
            if (directory / content["oid"]).exists():
                href = f"http://127.0.0.1:{port}/contents/{content['oid']}"
                objects.append({**content, "authenticated": True, "actions": {"download": {"href": href, "header": HEADER}}})
            else:
                objects.append({**content, "error": {"code": 404, "message": "there is no such content"}})
        self.answer(200, json.dumps({"transfer": "basic", "objects": objects}).encode())

    def do_GET(self):
        if self.is_known():
            self.answer(200, (directory / self.path.rsplit("/", 1)[1]).read_bytes())


http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
