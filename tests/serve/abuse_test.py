#!/usr/bin/env python3
"""Load and abuse: 200 pictures at once, clients that leave, limits, keys, an orderly end, nothing told that is not to be.

usage: abuse_test.py BIN MODEL [unittest arguments]      MODEL is models/toytown
"""
import http.server
import json
import os
import pathlib
import signal
import socket
import struct
import subprocess
import threading
import time
import zlib

import servers
from servers import BIN, MODEL, ServerTest, chat, data_uri, picture, user


def gray_png(width, height, shade):
    """A small picture of its own for each shade."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = (b"\0" + bytes([shade % 256, shade // 256 % 256] * ((width + 1) // 2))[:width + 1]) * height
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


class Load(ServerTest):
    def many(self, server, count, body_of):
        """Statuses of `count` simultaneous requests; 0 for one without an answer."""
        statuses = [0] * count
        gate = threading.Barrier(count)

        def one(i):
            body = body_of(i)
            gate.wait()
            try:
                answer = server.ask("POST", "/v1/chat/completions", body, timeout=300)
                statuses[i] = answer.status
                if answer.status in (429, 503):
                    self.assertGreater(int(answer.headers["Retry-After"]), 0)
            except OSError:
                pass
        threads = [threading.Thread(target=one, args=(i,)) for i in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return statuses

    def test_200_pictures_at_once(self):
        server = self.start("chiasm serve", "--features", "none")
        statuses = self.many(server, 200, lambda i: chat("Day or night?", gray_png(56, 56, i), max_tokens=4))
        self.assertEqual(statuses.count(200) + statuses.count(503) + statuses.count(429), 200)
        self.assertEqual(statuses.count(200), 200)  # 256 permits, 65536 tokens: there is room for all
        tight = self.start("chiasm serve", "--features", "none", "--max-requests", "8")
        statuses = self.many(tight, 200, lambda i: chat("Day or night?", gray_png(56, 56, i), max_tokens=4))
        self.assertEqual(statuses.count(200) + statuses.count(503) + statuses.count(429), 200)
        self.assertGreaterEqual(statuses.count(200), 8)
        self.ok(tight.ask("POST", "/v1/chat/completions", chat("Hello", max_tokens=2)))

    def test_small_pools_preempt_rather_than_fail(self):
        data, questions = picture(0)
        calm = self.start("chiasm serve")
        roomy = [self.ok(calm.ask("POST", "/v1/chat/completions", chat(q, data, ignore_eos=True, max_tokens=60)))
                 for q, _ in questions[:6]]
        # Room for about one and a half of these sequences.
        blocks = calm.ask("GET", "/v1/status").json()["kv"]["blocks"]
        block_bytes = (4 << 30) // blocks if blocks else 0
        longest = max(r["usage"]["total_tokens"] for r in roomy)
        pool = int(block_bytes * (longest / 32 + 2) * 1.5)
        tight = self.start("chiasm serve", "--kv-memory", pool)
        answers = [None] * 6

        def one(i):
            answers[i] = tight.ask("POST", "/v1/chat/completions",
                                   chat(questions[i][0], data, ignore_eos=True, max_tokens=60))
        threads = [threading.Thread(target=one, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for got, expected in zip(answers, roomy):
            self.assertEqual(self.ok(got)["choices"], expected["choices"])

    def test_a_client_that_leaves_is_dropped(self):
        server = self.start("chiasm serve")
        data, questions = picture(1)
        connection = server.connect()
        connection.request("POST", "/v1/chat/completions", json.dumps(
            chat(questions[0][0], data, stream=True, ignore_eos=True, max_tokens=1500)),
            {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.readline()
        generated = server.ask("GET", "/v1/status").json()["tokens"]["generated"]
        connection.sock.shutdown(socket.SHUT_RDWR)
        connection.close()
        response.close()
        for _ in range(200):
            status = server.ask("GET", "/v1/status").json()
            if status["requests"]["running"] == 0:
                break
            time.sleep(0.05)
        self.assertEqual(status["requests"]["running"], 0)
        self.assertEqual(status["kv"]["used"], 0)
        self.assertLess(status["tokens"]["generated"], generated + 1400)

    def test_a_deadline_in_the_header(self):
        server = self.start("chiasm serve")
        answer = server.ask("POST", "/v1/chat/completions", chat("Hello", ignore_eos=True, max_tokens=1500),
                            {"x-request-timeout-ms": "50"})
        self.error(answer, 504)
        self.ok(server.ask("POST", "/v1/chat/completions", chat("Hello", max_tokens=2), {"x-request-timeout-ms": "60000"}))

    def test_pings_while_prefilling(self):
        server = self.start("chiasm serve", "--ping-interval", "0.02")
        events = list(server.stream("/v1/chat/completions", chat("word " * 1300, stream=True, max_tokens=2)))
        self.assertGreater(sum(event.startswith(":") for event in events), 0)
        self.assertEqual(events[-1], "[DONE]")

    def test_orderly_end(self):
        server = self.start("chiasm serve")
        data, questions = picture(2)
        lines = []

        def read():
            lines.extend(server.stream("/v1/chat/completions", chat(questions[0][0], data, stream=True, ignore_eos=True,
                                                                   max_tokens=300)))
        reader = threading.Thread(target=read)
        reader.start()
        for _ in range(400):
            if server.ask("GET", "/v1/status").json()["requests"]["running"] == 1:
                break
            time.sleep(0.02)
        server.process.send_signal(signal.SIGTERM)
        seen = None
        for _ in range(200):
            try:
                ready = server.ask("GET", "/health/ready")
            except OSError:
                break  # it has ended already
            seen = ready.status
            if seen == 503:
                refused = server.ask("POST", "/v1/chat/completions", chat("Hello"))
                self.assertEqual(refused.status, 503)
                break
        self.assertEqual(server.process.wait(60), 0)
        reader.join(60)
        self.assertEqual(lines[-1], "[DONE]")  # what ran was finished

    def test_what_the_drain_time_cuts_is_told_so(self):
        server = self.start("chiasm serve", "--drain-timeout", "0.2", "--max-sequences", "1")
        data, questions = picture(5)
        body = chat(questions[0][0], data, ignore_eos=True, max_tokens=1500, temperature=1, n=4)
        streams, answers = [[] for _ in range(3)], []

        def stream(into):
            into.extend(server.stream("/v1/chat/completions", {**body, "stream": True}))
        threads = [threading.Thread(target=stream, args=(one,)) for one in streams]
        threads += [threading.Thread(target=lambda: answers.append(server.ask("POST", "/v1/chat/completions", body)))
                    for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(400):
            status = server.ask("GET", "/v1/status").json()["requests"]
            if status["running"] + status["waiting"] == 24:
                break
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(60)
        self.assertEqual(server.process.wait(60), 1)
        for lines in streams:
            self.assertEqual(lines[-1], "[DONE]")
        cut = [lines for lines in streams if "shutting down" in lines[-2]]
        self.assertGreaterEqual(len(cut) + sum(answer.status == 503 for answer in answers), 4)
        for answer in answers:
            if answer.status != 200:
                self.assertIn("shutting down", self.error(answer, 503)["message"])
                self.assertEqual(answer.headers["Retry-After"], "1")

    def test_who_reads_slowly_keeps_no_health_check_out(self):
        server = self.start("chiasm serve")
        slow = []
        for _ in range(16):
            connection = socket.create_connection((server.host, server.port))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 400)
            slow.append(connection)
        time.sleep(0.5)
        for _ in range(10):
            self.ok(server.ask("GET", "/health/live"))
        # Who announces bodies and sends none keeps no other body out.
        for _ in range(12):
            connection = socket.create_connection((server.host, server.port))
            connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                               b"Content-Length: 134217728\r\n\r\n{")
            slow.append(connection)
        time.sleep(0.2)
        self.ok(server.ask("POST", "/v1/chat/completions", chat("Hello", max_tokens=2)))
        for connection in slow:
            connection.close()

    def test_limits(self):
        server = self.start("chiasm serve", "--max-body", "200000", "--max-header", "2048", "--max-picture", "20000",
                            "--max-images", "2", "--max-text", "5000", "--max-json-depth", "8", "--max-questions", "3",
                            "--max-megapixels", "1", "--max-picture-tokens", "16")
        tiny = gray_png(56, 56, 1)
        self.error(server.ask("POST", "/v1/chat/completions", b"x" * 200_001), 413)
        self.error(server.ask("GET", "/v1/models", headers={"X-Long": "y" * 4000}), 431)
        big = data_uri(tiny + bytes(21_000))
        body = {"model": "toytown", "messages": [user({"type": "image_url", "image_url": {"url": big}}, "x")]}
        self.error(server.ask("POST", "/v1/chat/completions", body), 413, "messages[0].content[0].image_url.url")
        self.error(server.ask("POST", "/v1/chat/completions", {
            "model": "toytown", "messages": [user(*[servers.image_part(tiny)] * 3, "x")]}), 400)
        self.error(server.ask("POST", "/v1/chat/completions", chat("x" * 5001)), 413)
        self.error(server.ask("POST", "/v1/chat/completions", '{"a":' * 9 + "1" + "}" * 9,
                              {"Content-Type": "application/json"}), 400)
        self.error(server.ask("POST", "/v1/ask", {"model": "toytown", "questions": ["x"] * 4}), 400, "questions")
        self.error(server.ask("POST", "/v1/chat/completions", chat("x", gray_png(1100, 1000, 3))), 400)
        self.error(server.ask("POST", "/v1/chat/completions", chat("x", gray_png(700, 700, 3))), 400)
        self.ok(server.ask("POST", "/v1/chat/completions", chat("x", tiny, max_tokens=2)))

    def test_keys(self):
        keys = self.dir / "keys"
        keys.write_text("first-key-0123456789\nsecond-key-0123456789\n")
        server = self.start("chiasm serve", "--api-key-file", keys)
        for method, path in (("GET", "/v1/models"), ("GET", "/metrics"), ("GET", "/version"), ("GET", "/openapi.json"),
                             ("GET", "/v1/status"), ("POST", "/v1/chat/completions"), ("POST", "/v1/ask"),
                             ("POST", "/v1/images"), ("GET", "/v1/images/" + "0" * 64)):
            error = self.error(server.ask(method, path, b"{}" if method == "POST" else None), 401, code="invalid_api_key")
            self.assertNotIn("first-key", error["message"])
            self.error(server.ask(method, path, headers={"Authorization": "Bearer first-key-012345678"}), 401)
        for key in ("first-key-0123456789", "second-key-0123456789"):
            self.ok(server.ask("GET", "/v1/models", headers={"Authorization": f"Bearer {key}"}))
        self.ok(server.ask("GET", "/health/live"))
        self.ok(server.ask("GET", "/health/ready"))

    def test_beyond_loopback_only_with_a_key(self):
        def listening(*options):
            return subprocess.run([BIN / "chiasm-vision", "-m", MODEL, *options], capture_output=True, encoding="utf-8",
                                  timeout=60, env={**os.environ, **self.env})
        for address in ("0.0.0.0:0", "[::]:0"):
            done = listening("--listen", address)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn("--insecure", done.stderr)
        server = servers.Server("chiasm-vision", "--insecure", listen="0.0.0.0:0", env=self.env)
        self.running.append(server)

    def test_picture_urls(self):
        data, questions = picture(3)
        pages = self.dir / "pages"
        pages.mkdir(exist_ok=True)
        (pages / "scene.png").write_bytes(data)

        class Pages(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *arguments):
                super().__init__(*arguments, directory=pages)

            def do_GET(self):
                if self.path == "/away":
                    self.send_response(302)
                    self.send_header("Location", "http://169.254.169.254/latest/meta-data")
                    self.end_headers()
                else:
                    super().do_GET()

            def log_message(self, *_):
                pass
        host = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
        threading.Thread(target=host.serve_forever, daemon=True).start()
        self.addCleanup(host.server_close)
        self.addCleanup(host.shutdown)
        port = host.server_address[1]

        def ask(server, url):
            return server.ask("POST", "/v1/chat/completions", {
                "model": "toytown", "messages": [user({"type": "image_url", "image_url": {"url": url}}, questions[0][0])]})
        off = self.start("chiasm serve")
        self.error(ask(off, f"http://localhost:{port}/scene.png"), 400)
        listed = self.start("chiasm serve", "--media-domains", "localhost,127.0.0.1")
        for name in ("localhost", "127.0.0.1", "[::1]", "2130706433", "0x7f.1"):  # private, or not listed
            error = self.error(ask(listed, f"http://{name}:{port}/scene.png"), 400)
            self.assertNotIn("127.0.0.1", error["message"])
        private = self.start("chiasm serve", "--media-domains", "localhost,127.0.0.1", "--media-private-networks")
        got = self.ok(ask(private, f"http://localhost:{port}/scene.png"))
        self.assertEqual(got["choices"][0]["message"]["content"], questions[0][1])
        self.error(ask(private, f"http://localhost:{port}/away"), 400)
        self.error(ask(private, f"http://localhost:{port}/absent.png"), 400)
        self.error(ask(private, f"http://example.org:{port}/scene.png"), 400)

    def test_logs_hold_no_prompts_pixels_or_keys(self):
        keys = self.dir / "keys2"
        keys.write_text("the-key-of-this-test-1\n")
        server = self.start("chiasm serve", "--api-key-file", keys, "--log-level", "debug", "--log-format", "json")
        data, _ = picture(4)
        secret = "what is the zebra doing"
        headers = {"Authorization": "Bearer the-key-of-this-test-1"}
        self.ok(server.ask("POST", "/v1/chat/completions", chat(secret, data, max_tokens=4), headers))
        server.ask("POST", "/v1/chat/completions", chat(secret, b"zebra", max_tokens=4), headers)
        server.end()
        text = "".join(server.log)
        self.assertIn('"event":"answer"', text)
        for line in filter(None, server.log):
            json.loads(line)
        for word in ("zebra", "the-key-of-this-test-1", data_uri(data)[40:80]):
            self.assertNotIn(word, text)


if __name__ == "__main__":
    servers.main()
