#!/usr/bin/env python3
"""http_server.py - a file server for fetch_test.sh that can misbehave on purpose.

    http_server.py ROOT PORT_FILE LOG [--no-range]

Serves ROOT on 127.0.0.1, on a free port that it writes to PORT_FILE. LOG gets one line per request:
method, path, first byte asked for (0 without a Range), status. Below /api/datasets/OWNER/NAME/tree/
REVISION/ it lists a directory as the Hub does, two entries a page; files below 100 bytes are listed
as plain git files, the others as LFS files.

ROOT/.trouble, read at every request, holds lines "PATH KIND N": for the path that ends in PATH
  cut N     the first request is broken off after N bytes (the line is then removed)
  status N  the answer is that status
"""
import hashlib
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

root, port_file, log = sys.argv[1:4]
ranges = "--no-range" not in sys.argv[4:]
trouble_file = os.path.join(root, ".trouble")


def trouble(path):
    """The kind and number for this path; a cut is for one time."""
    if not os.path.exists(trouble_file):
        return None, 0
    with open(trouble_file) as f:
        lines = [line.split() for line in f]
    for line in lines:
        if path.endswith(line[0]):
            if line[1] == "cut":
                with open(trouble_file, "w") as f:
                    f.writelines(" ".join(other) + "\n" for other in lines if other is not line)
            return line[1], int(line[2])
    return None, 0


def entry(repository, name):
    path = os.path.join(repository, name)
    if os.path.isdir(path):
        return {"type": "directory", "oid": "0" * 40, "size": 0, "path": name}
    with open(path, "rb") as f:
        data = f.read()
    e = {"type": "file", "size": len(data), "path": name}
    e["oid"] = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    if len(data) >= 100:
        e["oid"] = hashlib.sha1(b"a pointer, not the file").hexdigest()
        e["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return e


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def note(self, start, status):
        with open(log, "a") as f:
            f.write(f"{self.command} {self.path} {start} {status}\n")

    def answer(self, status, body, headers=()):
        self.note(0, status)
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def tree(self, url):
        # api/datasets/OWNER/NAME/tree/REVISION/DIRECTORY; the files lie where resolve/ serves them
        parts = url.path.strip("/").split("/")
        repository = os.path.join(root, "datasets", parts[2], parts[3], "resolve", parts[5])
        directory = "/".join(parts[6:])
        if not os.path.isdir(os.path.join(repository, directory)):
            return self.answer(404, b'{"error":"Entry not found"}')
        names = sorted(os.listdir(os.path.join(repository, directory)))
        first = int(parse_qs(url.query).get("cursor", ["0"])[0])
        page = [entry(repository, os.path.join(directory, n)) for n in names[first:first + 2]]
        headers = []
        if first + 2 < len(names):
            host = self.headers["Host"]
            headers = [("Link", f'<http://{host}{url.path}?cursor={first + 2}>; rel="next"')]
        self.answer(200, json.dumps(page).encode(), headers)

    def do_GET(self):
        url = urlsplit(self.path)
        if url.path.startswith("/api/datasets/"):
            return self.tree(url)
        kind, number = trouble(url.path)
        if kind == "status":
            return self.answer(number, b"")
        path = os.path.join(root, url.path.lstrip("/"))
        if not os.path.isfile(path):
            return self.answer(404, b"Entry not found")
        with open(path, "rb") as f:
            data = f.read()
        start = 0
        wanted = self.headers.get("Range", "")
        if ranges and wanted.startswith("bytes="):
            start = int(wanted[6:].split("-")[0])
            if start >= len(data):
                return self.answer(416, b"", [("Content-Range", f"bytes */{len(data)}")])
        self.note(start, 206 if start else 200)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if kind == "cut":
            self.wfile.write(data[start:start + number])
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(data[start:])


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
with open(port_file + ".new", "w") as f:
    f.write(str(server.server_address[1]))
os.rename(port_file + ".new", port_file)
server.serve_forever()
