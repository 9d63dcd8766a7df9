"""Starts and asks the servers, for the tests of this folder. Standard library only."""
import base64
import http.client
import json
import os
import pathlib
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import unittest
import urllib.parse

BIN, MODEL = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
EVAL = MODEL / "eval"
TRUTH = json.loads((EVAL / "truth.json").read_text(encoding="utf-8"))


def picture(index):
    """(bytes, [(question, answer)]) of an evaluation picture."""
    entry = TRUTH[index]
    return (EVAL / entry["image"]).read_bytes(), [(q["question"], q["answer"]) for q in entry["questions"]]


def data_uri(data):
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64," + base64.b64encode(data).decode()


def image_part(data, **more):
    return {"type": "image_url", "image_url": {"url": data_uri(data), **more}}


def user(*parts):
    return {"role": "user", "content": [{"type": "text", "text": p} if isinstance(p, str) else p for p in parts]}


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)


class Server:
    """A running server; `url` is where it listens."""

    def __init__(self, program, *options, env=None, wait_ready=True, listen="127.0.0.1:0"):
        self.lines, self.log = queue.Queue(), []
        words = program.split()
        self.process = subprocess.Popen([BIN / words[0], *words[1:], "--listen", listen, *map(str, options)],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
                                        env={**os.environ, "CHIASM_MODEL": str(MODEL), **(env or {})})
        self.threads = [threading.Thread(target=self._read, args=(self.process.stdout, self.lines.put), daemon=True),
                        threading.Thread(target=self._read, args=(self.process.stderr, self.log.append), daemon=True)]
        for thread in self.threads:
            thread.start()
        line = self._line()
        if not line.startswith("listening on "):
            raise RuntimeError(f"{program}: {line!r} {self.log}")
        self.url = line.removeprefix("listening on ").strip()
        self.host, self.port = urllib.parse.urlsplit(self.url).hostname, urllib.parse.urlsplit(self.url).port
        if wait_ready:
            line = self._line()
            if line.strip() != "ready":
                raise RuntimeError(f"{program}: {line!r} {self.log}")

    @staticmethod
    def _read(stream, take):
        for line in stream:
            take(line)
        take("")

    def _line(self):
        return self.lines.get(timeout=120)

    def connect(self, timeout=120):
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)

    def ask(self, method, path, body=None, headers=None, timeout=120):
        """One exchange over a connection of its own."""
        connection = self.connect(timeout)
        if isinstance(body, (dict, list)):
            body, headers = json.dumps(body), {"Content-Type": "application/json", **(headers or {})}
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def stream(self, path, body, headers=None, timeout=120):
        """Yields the data of each event, '[DONE]' included, and ':' comments as they are."""
        connection = self.connect(timeout)
        try:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json", **(headers or {})})
            response = connection.getresponse()
            if response.status != 200:
                raise AssertionError(f"status {response.status}: {response.read()}")
            for line in response:
                line = line.decode().rstrip("\r\n")
                if line.startswith("data: "):
                    yield line[6:]
                elif line.startswith(":"):
                    yield line
        finally:
            connection.close()

    def metric(self, name, **labels):
        """The value of one sample in /metrics; 0 when it is not there."""
        for line in self.ask("GET", "/metrics").body.decode().splitlines():
            head, _, value = line.rpartition(" ")
            if head.split("{")[0] == name and all(f'{k}="{v}"' in head for k, v in labels.items()):
                return float(value)
        return 0.0

    def end(self, sig=signal.SIGTERM, timeout=60):
        """Tells it to end; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        for thread in self.threads:
            thread.join(10)
        self.process.stdout.close()
        self.process.stderr.close()
        return code


class ServerTest(unittest.TestCase):
    """Each test class has a folder of its own for features and caches."""

    @classmethod
    def setUpClass(cls):
        cls.dir = pathlib.Path(tempfile.mkdtemp(prefix="chiasm-serve-"))
        cls.addClassCleanup(shutil.rmtree, cls.dir)
        cls.env = {"XDG_CACHE_HOME": str(cls.dir / "cache")}
        cls.running = []
        cls.addClassCleanup(cls.end_all)

    @classmethod
    def start(cls, program, *options, **more):
        server = Server(program, *options, env=cls.env, **more)
        cls.running.append(server)
        return server

    @classmethod
    def end_all(cls):
        for server in cls.running:
            if server.process.poll() is None:
                server.process.kill()
            server.process.wait()

    def ok(self, answer):
        self.assertEqual(answer.status, 200, answer.body[:500])
        return answer.json()

    def error(self, answer, status, param=None, code=None):
        self.assertEqual(answer.status, status, answer.body[:500])
        error = answer.json()["error"]
        self.assertEqual(set(error), {"message", "type", "param", "code"})
        if param is not None:
            self.assertEqual(error["param"], param)
        if code is not None:
            self.assertEqual(error["code"], code)
        return error


def chat(question, data=None, **more):
    parts = ([image_part(data)] if data else []) + [question]
    return {"model": "toytown", "messages": [user(*parts)], "max_tokens": 64, **more}


def main():
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=2)
