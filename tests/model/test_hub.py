"""Models on the Hub, against a server of the loopback interface that answers as the Hub does."""

import base64
import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from speechattn import FrameClassifier
from speechattn.model.hub import card_summary

COMMIT = "0" * 40


@pytest.fixture
def hub():
    """(address, files): a Hub with one repository, `someone/phones`, once somebody has made it."""
    files: dict[str, bytes] = {}
    made: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def page(self):
            return f"http://{self.headers['Host']}/someone/phones"

        def answer(self, value, status=200, headers=()):
            body = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            for header in headers:
                self.send_header(*header)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/api/repos/create":
                made.append(self.headers["Authorization"])
                self.answer(
                    {
                        "url": f"http://{self.headers['Host']}/someone/phones",
                        "id": "someone/phones",
                        "name": "someone/phones",
                    }
                )
            elif self.path == "/api/validate-yaml":
                self.answer({"errors": [], "warnings": []})
            elif self.path.endswith("/preupload/main"):
                asked = json.loads(body)["files"]
                self.answer({"files": [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in asked]})
            elif self.path.endswith("/commit/main"):
                for line in body.splitlines():
                    row = json.loads(line)
                    if row["key"] == "file":
                        files[row["value"]["path"]] = base64.b64decode(row["value"]["content"])
                self.answer(
                    {"commitUrl": f"http://{self.headers['Host']}/someone/phones/commit/{COMMIT}", "commitOid": COMMIT}
                )
            else:
                self.answer({"error": "what?"}, 404)

        def do_GET(self):
            name = self.path.split("?")[0].rsplit("/", 1)[1]
            if not files or "someone/phones" not in self.path:
                self.answer({"error": "Repository not found"}, 404, [("X-Error-Code", "RepoNotFound")])
            elif "/resolve/" in self.path:
                self.answer(files[name], headers=[("ETag", f'"{name}"'), ("X-Repo-Commit", COMMIT)])
            elif "/tree/" in self.path:
                self.answer([{"type": "file", "path": n, "size": len(files[n]), "oid": n} for n in files])
            else:
                siblings = [{"rfilename": file} for file in files]
                self.answer({"id": "someone/phones", "sha": COMMIT, "siblings": siblings, "tags": []})

        do_HEAD = do_GET

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", files, made
        server.shutdown()


def test_a_model_goes_to_the_hub_and_comes_back(hub, model_folder, tmp_path):
    address, files, made = hub
    script = (
        "from speechattn import FrameClassifier\n"
        f"model = FrameClassifier.from_pretrained({str(model_folder)!r})\n"
        "try: FrameClassifier.from_pretrained('hf:someone/phones')\n"
        "except ValueError as error: assert 'cannot be loaded from the Hugging Face Hub' in str(error), error\n"
        "print(model.push_to_hub('someone/phones'))\n"
        f"FrameClassifier.from_pretrained('hf:someone/phones').save_pretrained({str(tmp_path / 'again')!r})\n"
        "try: model.push_to_hub('nobody/../x')\n"
        "except ValueError as error: print(error)\n"
    )
    environment = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "cache"), "HF_TOKEN": "hf_secret"}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert made == ["Bearer hf_secret"] and sorted(files) == ["README.md", "config.json", "model.safetensors"]
    assert f"/commit/{COMMIT}" in run.stdout and "cannot be uploaded to the Hugging Face Hub" in run.stdout
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (model_folder / name).read_bytes()
    card = files["README.md"].decode()
    assert (
        card.startswith("---\nlibrary_name: speechattn\n")
        and 'FrameClassifier.from_pretrained("hf:someone/phones")' in card
    )
    assert f"{sum(p.numel() for p in FrameClassifier.from_pretrained(model_folder).parameters()):,} parameters" in card


@pytest.mark.parametrize(
    ("card", "summary"),
    [
        ("---\nlicense: x\n---\n\n# name\n\nFinds\nphones. Well.\n\nMore.\n", "Finds phones. Well."),
        ("---\na: b\n---\n# name\n\n```\ncode\n```\n\nText\n", "Text"),
        ("---\na: b\n---\n# name\n", ""),
        ("# name\n\nText.\n", "Text."),
    ],
)
def test_the_first_paragraph_of_a_card_is_its_summary(tmp_path, card, summary):
    (tmp_path / "README.md").write_text(card)
    assert card_summary(tmp_path / "README.md") == summary
    assert card_summary(tmp_path / "absent.md") == ""
