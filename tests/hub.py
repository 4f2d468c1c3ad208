"""A server of files on the loopback, as a hub of weights answers."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub(ThreadingHTTPServer):
    """Some files by their paths, also as `OWNER/NAME/resolve/main/FILE`; it can state wrong hashes and cut short."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.gets, self.cuts, self.stated = {}, [], 0, None
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def __exit__(self, *error):
        self.shutdown()
        super().__exit__(*error)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(send=False)

    def do_GET(self):
        self.answer(send=True)

    def answer(self, send):
        data = self.server.files.get(self.path.replace("/resolve/main", "").strip("/"))
        self.send_response(404 if data is None else 206 if "Range" in self.headers else 200)
        self.send_header("X-Repo-Commit", "0" * 40)
        if data is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("ETag", f'"{self.server.stated or hashlib.sha256(data or b"").hexdigest()}"')
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        body = (data or b"")[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if send and not self.path.startswith("/api/"):
            self.server.gets.append((self.path.rpartition("/")[2], start))
            cut, self.server.cuts = self.server.cuts > 0, self.server.cuts - 1
            self.wfile.write(body[: len(body) // 2] if cut else body)
            self.close_connection = self.close_connection or cut

    def log_message(self, *_):
        pass
