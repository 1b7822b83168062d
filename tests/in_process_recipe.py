"""Run a recipe with its commands executed in the test process, which has PyTorch loaded: seconds instead of minutes."""

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from speechattn.commands.main import main

RECIPES = Path(__file__).resolve().parents[1] / "recipes"

# Replaces the command `speechattn`: sends its arguments to the test process and prints the reply.
STUB = """#!{python} -ES
import http.client, json, sys
connection = http.client.HTTPConnection("127.0.0.1", {port})
connection.request("POST", "/", json.dumps(sys.argv[1:]))
code, out, err = json.loads(connection.getresponse().read())
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(code)
"""


class _Commands(BaseHTTPRequestHandler):
    def do_POST(self):
        arguments = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        out, err, code = io.StringIO(), io.StringIO(), 0
        with redirect_stdout(out), redirect_stderr(err):
            try:
                main(arguments)
            except SystemExit as stop:
                code = stop.code
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps([code, out.getvalue(), err.getvalue()]).encode())

    def log_message(self, *arguments: object) -> None:
        pass


def run_recipe(recipe: str, *options: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a recipe's run.sh; `folder` receives the stub and the output."""
    stub = folder / "bin/speechattn"
    stub.parent.mkdir(parents=True, exist_ok=True)
    command = ["bash", str(RECIPES / recipe / "run.sh"), *map(str, options)]
    environment = {**os.environ, "PATH": f"{stub.parent}:{os.environ['PATH']}"}
    with (
        HTTPServer(("127.0.0.1", 0), _Commands) as server,
        open(folder / "out", "w+") as out,
        open(folder / "err", "w+") as err,
    ):
        stub.write_text(STUB.format(python=sys.executable, port=server.server_port))
        stub.chmod(0o755)
        server.timeout = 0.1
        with subprocess.Popen(command, stdout=out, stderr=err, env=environment) as process:
            while process.poll() is None:
                server.handle_request()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(command, process.returncode, out.read(), err.read())
