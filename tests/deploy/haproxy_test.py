#!/usr/bin/env python3
"""deploy/haproxy/haproxy.cfg in a run: TLS, streams without buffering, one server for a conversation, tenants by key, a server
that dies. Before servers of a few lines that tell what they got, and before two `chiasm serve` processes.

usage: haproxy_test.py BIN MODEL [unittest arguments]
"""
import http.client
import http.server
import json
import pathlib
import re
import socket
import ssl
import subprocess
import sys
import threading
import time

import deploy
from deploy import DEPLOY, DeployTest, read, run

sys.path.insert(0, str(deploy.ROOT / "tests" / "serve"))
import servers  # noqa: E402  (it reads BIN and MODEL from the command line as well)

CONFIG = DEPLOY / "haproxy/haproxy.cfg"
PATIENCE = 60


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Fake(http.server.ThreadingHTTPServer):
    """Ready; answers with its name and the headers that it got; a stream's next event comes when the last one was seen."""
    daemon_threads = True

    def __init__(self, name):
        super().__init__(("127.0.0.1", 0), FakeHandler)
        self.name, self.seen, self.posts = name, threading.Semaphore(0), []
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def die(self):
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        pass


class FakeHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.answer(200, {"server": self.server.name, "path": self.path})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.posts.append(self.path)
        if self.path == "/die":  # after the request was read: it may have been worked on
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif self.path == "/stream":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for i in range(5):
                event = f"data: {i}\n\n".encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
                self.wfile.flush()
                if not self.server.seen.acquire(timeout=PATIENCE):
                    return
            self.wfile.write(b"0\r\n\r\n")
        else:
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.answer(200, {"server": self.server.name, "headers": headers, "bytes": len(body)})


class Proxy:
    """HAProxy with the shipped configuration; only addresses and paths are others."""

    def __init__(self, binary, folder, ports, tenants=""):
        self.folder = pathlib.Path(folder)
        self.pem = self.folder / "chiasm.pem"
        done = run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                   "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                   "-keyout", self.folder / "key.pem", "-out", self.folder / "cert.pem")
        assert done.returncode == 0, done.stdout
        self.pem.write_text(read(self.folder / "cert.pem") + read(self.folder / "key.pem"), encoding="utf-8")
        (self.folder / "tenants.map").write_text(tenants, encoding="utf-8")
        self.https, self.http, self.inside = free_port(), free_port(), free_port()
        text = read(CONFIG)
        for old, new in (("bind :443", f"bind 127.0.0.1:{self.https}"), ("bind :80\n", f"bind 127.0.0.1:{self.http}\n"),
                         ("127.0.0.1:8404", f"127.0.0.1:{self.inside}"), ("/etc/haproxy/", f"{self.folder}/"),
                         ("/run/haproxy/", f"{self.folder}/"), ("log /dev/log", f"log {self.folder}/log.sock")):
            assert old in text, old
            text = text.replace(old, new)
        # The servers that are not there are refused, as when they are down.
        names = dict.fromkeys(re.findall(r"^\s+server (\S+) [\d.]+:\d+", text, re.MULTILINE))
        for name, port in zip(names, (*ports, *(free_port() for _ in names))):
            text = re.sub(rf"(server {name}) [\d.]+:\d+", rf"\1 127.0.0.1:{port}", text)
        self.config = self.folder / "haproxy.cfg"
        self.config.write_text(text, encoding="utf-8")
        self.check = run(binary, "-c", "-f", self.config)
        self.process = subprocess.Popen([binary, "-db", "-f", self.config],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.context = ssl.create_default_context(cafile=str(self.folder / "cert.pem"))
        end = time.monotonic() + PATIENCE
        while self.status(len(ports)) is None:
            if time.monotonic() > end or self.process.poll() is not None:
                raise RuntimeError("HAProxy does not see its servers")
            time.sleep(0.1)

    def status(self, up):
        """The statistics once exactly `up` servers are up."""
        try:
            text = self.get_inside("/stats;csv")
        except OSError:
            return None
        states = [line.split(",")[17] for line in text.splitlines() if line.startswith("by_affinity,language-")]
        return states if sum(state.startswith("UP") for state in states) == up else None

    def get_inside(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.inside, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def ask(self, method, path, body=None, headers=None, tls=True):
        connection = (http.client.HTTPSConnection("localhost", self.https, context=self.context, timeout=PATIENCE) if tls
                      else http.client.HTTPConnection("127.0.0.1", self.http, timeout=PATIENCE))
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return servers.Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def end(self):
        self.process.kill()
        self.process.wait()


class HaproxyTest(DeployTest):
    def start(self, ports, tenants=""):
        folder = self.dir / self.id().rsplit(".", 1)[-1]
        folder.mkdir()
        proxy = Proxy(self.tool("haproxy", "haproxy"), folder, ports, tenants)
        self.addCleanup(proxy.end)
        return proxy

    def setUp(self):
        self.tool("haproxy", "haproxy")
        self.tool("openssl", "openssl")


class WithFakes(HaproxyTest):
    def setUp(self):
        super().setUp()
        self.fakes = [Fake("one"), Fake("two")]
        for fake in self.fakes:
            self.addCleanup(fake.server_close)
            self.addCleanup(fake.shutdown)
        self.proxy = self.start([fake.port for fake in self.fakes], read(DEPLOY / "haproxy/tenants.map"))

    def post(self, **headers):
        answer = self.proxy.ask("POST", "/v1/chat/completions", b"{}", {k.replace("_", "-"): v for k, v in headers.items()})
        self.assertEqual(answer.status, 200, answer.body)
        return answer.json()

    def test_the_file_is_valid_without_warnings(self):
        self.assertEqual(self.proxy.check.returncode, 0, self.proxy.check.stdout)
        self.assertNotIn("WARNING", self.proxy.check.stdout)

    def test_streams_are_not_buffered(self):
        connection = http.client.HTTPSConnection("localhost", self.proxy.https, context=self.proxy.context, timeout=PATIENCE)
        connection.request("POST", "/stream", b"{}", {"X-Session": "s"})
        response = connection.getresponse()
        self.assertEqual(response.headers["Content-Type"], "text/event-stream")
        for i in range(5):
            # The server writes the next one when it hears that this one is here.
            self.assertEqual(response.readline(), f"data: {i}\n".encode())
            self.assertEqual(response.readline(), b"\n")
            for fake in self.fakes:
                fake.seen.release()
        self.assertEqual(response.read(), b"")
        connection.close()

    def test_a_conversation_stays_with_its_server(self):
        homes = {}
        for session in range(24):
            homes[session] = {self.post(X_Session=f"session-{session}")["server"] for _ in range(3)}
            self.assertEqual(len(homes[session]), 1)
        self.assertEqual({name for home in homes.values() for name in home}, {"one", "two"})
        self.assertEqual({self.post()["server"] for _ in range(12)}, {"one", "two"})

    def test_tenants_come_from_keys_alone(self):
        known = self.post(Authorization="Bearer example-key-of-tenant-a", X_Tenant="tenant-b")
        self.assertEqual(known["headers"]["x-tenant"], "tenant-a")
        self.assertEqual(known["headers"]["x-forwarded-for"], "127.0.0.1")
        self.assertEqual(known["headers"]["authorization"], "Bearer example-key-of-tenant-a")
        for key in ("Bearer example-key-of-tenant-", "Bearer other", ""):
            self.assertNotIn("x-tenant", self.post(Authorization=key, X_Tenant="tenant-a")["headers"])

    def test_the_next_request_after_a_death_succeeds(self):
        home = self.post(X_Session="mine")["server"]
        dead, alive = sorted(self.fakes, key=lambda fake: fake.name != home)
        dead.die()
        # At once, whether or not the checks have seen it; afterwards with the other one.
        for _ in range(5):
            self.assertEqual(self.post(X_Session="mine")["server"], alive.name)
            self.assertEqual(self.post()["server"], alive.name)

    def test_what_was_sent_is_not_repeated(self):
        answer = self.proxy.ask("POST", "/die", b"{}", {"X-Session": "mine"})
        self.assertEqual(answer.status, 502)
        self.assertEqual(answer.json()["error"]["type"], "server_error")
        self.assertEqual(sum(fake.posts.count("/die") for fake in self.fakes), 1)

    def test_nobody_left(self):
        for fake in self.fakes:
            fake.die()
        answer = self.proxy.ask("POST", "/v1/chat/completions", b"{}")
        self.assertEqual((answer.status, answer.headers["Retry-After"]), (503, "1"))
        self.assertEqual(answer.json()["error"]["code"], "overloaded")

    def test_doors(self):
        self.assertEqual(self.proxy.ask("GET", "/metrics").status, 404)
        self.assertIn("haproxy_server_status", self.proxy.get_inside("/metrics"))
        moved = self.proxy.ask("POST", "/v1/ask", b"{}", {"Host": "localhost"}, tls=False)
        self.assertEqual((moved.status, moved.headers["Location"]), (308, "https://localhost/v1/ask"))


class WithChiasm(HaproxyTest):
    """Two real servers with the demo model."""

    def setUp(self):
        super().setUp()
        self.running = []
        self.addCleanup(lambda: [server.end(servers.signal.SIGKILL) for server in self.running])
        for name in ("one", "two"):
            self.running.append(servers.Server("chiasm serve", env={"XDG_CACHE_HOME": str(self.dir / name)}))
        self.proxy = self.start([server.port for server in self.running])

    def asked(self):
        return [int(server.ask("GET", "/v1/status").json()["requests"]["finished"]) for server in self.running]

    def stream(self, question, data):
        body = json.dumps(servers.chat(question, data, stream=True))
        connection = http.client.HTTPSConnection("localhost", self.proxy.https, context=self.proxy.context, timeout=PATIENCE)
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json", "X-Session": "mine"})
        response = connection.getresponse()
        self.assertEqual(response.status, 200)
        events = [line.decode().strip()[6:] for line in response if line.startswith(b"data: ")]
        connection.close()
        self.assertEqual(events[-1], "[DONE]")
        deltas = [choice["delta"].get("content") or "" for event in events[:-1] for choice in json.loads(event)["choices"]]
        return "".join(deltas)

    def test_answers_with_a_server_less(self):
        data, questions = servers.picture(4)
        for question, answer in questions[:3]:
            self.assertEqual(self.stream(question, data), answer)
        asked = self.asked()
        self.assertEqual(sorted(asked), [0, 3])
        home = asked.index(3)
        self.running[home].end(servers.signal.SIGKILL)
        self.assertEqual(self.stream(questions[3][0], data), questions[3][1])
        other = self.running[1 - home]
        self.assertEqual(int(other.ask("GET", "/v1/status").json()["requests"]["finished"]), 1)
        self.assertEqual(other.end(), 0)


if __name__ == "__main__":
    deploy.main()
