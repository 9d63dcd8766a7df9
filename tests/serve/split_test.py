#!/usr/bin/env python3
"""The split over ports of this machine: the same tokens, who does what, servers that fail and return, keys, tenants.

usage: split_test.py BIN MODEL [unittest arguments]      MODEL is models/toytown
"""
import json
import pathlib
import signal
import subprocess
import sys
import time

import servers
from servers import BIN, MODEL, ServerTest, chat, data_uri, picture, user


class Split(ServerTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.halves = cls.dir / "halves"
        subprocess.run([BIN / "chiasm", "split", MODEL, cls.halves], check=True, capture_output=True)

    def vision(self, *options, **more):
        return self.start("chiasm-vision", "-m", self.halves / "vision", "--features", "none", *options, **more)

    def language(self, *visions, options=(), **more):
        urls = ",".join(v if isinstance(v, str) else v.url for v in visions)
        return self.start("chiasm-language", "-m", self.halves / "language", "--vision", urls,
                          "--served-model-name", "toytown", "--features", "none", *options, **more)

    def content(self, server, question, data, headers=None, **more):
        got = self.ok(server.ask("POST", "/v1/chat/completions", chat(question, data, **more), headers))
        return got["choices"][0]["message"]["content"], got

    def test_all_three_answer_alike(self):
        one = self.start("chiasm serve", "--features", "none")
        eyes = [self.vision(), self.vision()]
        split = self.language(*eyes)
        for index in range(6):
            data, questions = picture(index)
            for question, answer in questions[:3]:
                more = dict(logprobs=True, top_logprobs=2)
                a, whole = self.content(one, question, data, **more)
                b, apart = self.content(split, question, data, **more)
                self.assertEqual(a, answer)
                self.assertEqual(b, answer)
                self.assertEqual(whole["choices"], apart["choices"])
                self.assertEqual(whole["usage"], apart["usage"])
                self.assertEqual(whole["vision"][0]["feature_id"], apart["vision"][0]["feature_id"])
        used = [eye.metric("chiasm_features_total", source="encoded") for eye in eyes]
        self.assertEqual(sum(used), 6)  # each picture was looked at by one of them, once

    def test_sources(self):
        eye = self.vision()
        language = self.language(eye)
        data, questions = picture(1)
        _, first = self.content(language, questions[0][0], data)
        _, second = self.content(language, questions[1][0], data)
        self.assertEqual(first["vision"][0]["source"], "vision_server")
        self.assertEqual(second["vision"][0]["source"], "memory")
        up = self.ok(language.ask("POST", "/v1/images", {"image": data_uri(picture(2)[0])}))
        self.assertEqual(up["source"], "vision_server")
        self.assertEqual(eye.ask("HEAD", f"/v1/features/{up['id']}").status, 200)
        self.ok(language.ask("DELETE", f"/v1/images/{up['id']}"))
        self.assertEqual(eye.ask("HEAD", f"/v1/features/{up['id']}").status, 404)

    def test_no_vision_server(self):
        eye = self.vision()
        language = self.language(eye)
        known, questions = picture(3)
        self.content(language, questions[0][0], known)
        eye.end(signal.SIGKILL)
        answer = language.ask("POST", "/v1/chat/completions", chat("x", picture(4)[0]))
        self.error(answer, 503)
        self.assertGreater(int(answer.headers["Retry-After"]), 0)
        self.assertEqual(self.content(language, questions[2][0], known)[0], questions[2][1])
        self.assertEqual(self.content(language, "Hello", None, max_tokens=2)[1]["usage"]["completion_tokens"], 2)

    def test_one_of_two_fails_and_returns(self):
        eyes = [self.vision(), self.vision()]
        language = self.language(*eyes)
        eyes[0].end(signal.SIGKILL)
        for index in range(4, 10):
            data, questions = picture(index)
            self.assertEqual(self.content(language, questions[0][0], data)[0], questions[0][1])
        states = {}
        for _ in range(120):  # two probes go by
            states = {s["name"]: s["state"] for s in language.ask("GET", "/v1/status").json()["vision_servers"]}
            if states[eyes[0].url] == "ejected":
                break
            time.sleep(0.25)
        self.assertEqual(states, {eyes[0].url: "ejected", eyes[1].url: "healthy"})
        back = servers.Server("chiasm-vision", "-m", self.halves / "vision", "--features", "none",
                              listen=f"127.0.0.1:{eyes[0].port}", env=self.env)
        self.running.append(back)
        for _ in range(240):
            states = {s["name"]: s["state"] for s in language.ask("GET", "/v1/status").json()["vision_servers"]}
            if states[eyes[0].url] == "healthy":
                break
            time.sleep(0.25)
        self.assertEqual(states[eyes[0].url], "healthy")

    def test_other_weights_are_refused_by_both_names(self):
        # A vision half whose patch embedding differs in one bit.
        other = self.dir / "other"
        subprocess.run(["cp", "-r", self.halves / "vision", other], check=True)
        file = next(other.glob("*.safetensors"))
        data = bytearray(file.read_bytes())
        data[-2] ^= 1
        file.write_bytes(data)
        eye = self.start("chiasm-vision", "-m", other, "--features", "none")
        language = self.language(eye)
        info = self.ok(eye.ask("GET", "/v1/info"))
        error = self.error(language.ask("POST", "/v1/chat/completions", chat("x", picture(0)[0])), 409,
                           code="model_mismatch")
        self.assertIn(info["vision_digest"], error["message"])
        own = json.loads((self.halves / "language" / "vision_digest.json").read_text())
        self.assertIn(next(v for v in own.values() if isinstance(v, str) and len(v) == 64 and v in error["message"]),
                      error["message"])
        accepting = self.language(eye, options=("--accept-vision-digest", info["vision_digest"]))
        # The key is made of the checkpoint's own digest: another encoder's features do not answer to it.
        self.assertIn(accepting.ask("POST", "/v1/chat/completions", chat("x", picture(0)[0])).status, (200, 409))

    def test_shared_folder_moves_no_tensor(self):
        folder = self.dir / "shared-features"
        eye = self.start("chiasm-vision", "-m", self.halves / "vision", "--features", folder)
        language = self.start("chiasm-language", "-m", self.halves / "language", "--vision", eye.url, "--features", folder,
                              "--served-model-name", "toytown")
        data, questions = picture(16)
        text, got = self.content(language, questions[0][0], data)
        self.assertEqual(text, questions[0][1])
        sent = eye.metric("chiasm_http_response_bytes_total", route="/v1/features")
        self.assertGreater(got["vision"][0]["tokens"] * 4, 0)
        self.assertLess(sent, 4096)  # a description, not rows
        self.assertEqual(len(list(folder.glob("??/*.safetensors"))), 1)

    def test_roles_know_each_other_by_a_key(self):
        key = self.dir / "role.key"
        key.write_text("# between the halves\na-secret-of-both-halves\n")
        eye = self.vision("--api-key-file", key)
        data, questions = picture(5)
        self.error(eye.ask("POST", "/v1/features", data), 401, code="invalid_api_key")
        self.ok(eye.ask("GET", "/health/ready"))
        without = self.language(eye)
        self.error(without.ask("POST", "/v1/chat/completions", chat("x", data)), 503)
        knowing = self.language(eye, options=("--vision-key-file", key))
        self.assertEqual(self.content(knowing, questions[0][0], data)[0], questions[0][1])

    def test_roles_know_each_other_by_certificates(self):
        pki = self.dir / "pki"
        pki.mkdir()

        def openssl(*words):
            subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, cwd=pki)
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test ca",
                "-days", "2")
        for name in ("vision", "language"):
            openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
            (pki / "ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
            openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", f"{name}.pem",
                    "-extfile", "ext", "-days", "2")
        eye = self.vision("--tls-cert", pki / "vision.pem", "--tls-key", pki / "vision.key", "--tls-client-ca", pki / "ca.pem")
        self.assertTrue(eye.url.startswith("https://"))
        data, questions = picture(6)
        shown = ("--vision-ca", pki / "ca.pem")
        stranger = self.language(eye, options=shown)
        self.error(stranger.ask("POST", "/v1/chat/completions", chat("x", data)), 503)
        known = self.language(eye, options=(*shown, "--vision-cert", pki / "language.pem", "--vision-cert-key",
                                            pki / "language.key"))
        self.assertEqual(self.content(known, questions[0][0], data)[0], questions[0][1])

    def test_tenants_see_nothing_of_each_other(self):
        eye = self.vision()
        language = self.language(eye, options=("--tenant-header", "X-Tenant"))
        data, questions = picture(7)
        a, b = {"X-Tenant": "a"}, {"X-Tenant": "b"}
        first = self.content(language, questions[0][0], data, a)[1]
        again = self.content(language, questions[0][0], data, a)[1]
        other = self.content(language, questions[0][0], data, b)[1]
        self.assertEqual(first["choices"], other["choices"])
        self.assertEqual(again["vision"][0]["source"], "memory")
        self.assertEqual(other["vision"][0]["source"], "vision_server")
        self.assertNotEqual(first["vision"][0]["feature_id"], other["vision"][0]["feature_id"])
        self.assertEqual(other["usage"]["prompt_tokens_details"]["cached_tokens"], 0)
        id_of_a = first["vision"][0]["feature_id"]
        self.ok(language.ask("GET", f"/v1/images/{id_of_a}", headers=a))
        for headers in (b, {}):
            self.error(language.ask("GET", f"/v1/images/{id_of_a}", headers=headers), 404)
            self.error(language.ask("DELETE", f"/v1/images/{id_of_a}", headers=headers), 404)
            body = {"model": "toytown", "messages": [user({"type": "image_id", "image_id": id_of_a}, "x")]}
            self.error(language.ask("POST", "/v1/chat/completions", body, headers), 404)

    def test_vision_server_alone(self):
        eye = self.vision()
        data, _ = picture(8)
        file = eye.ask("POST", "/v1/features", data)
        self.assertEqual(file.status, 200)
        out = self.dir / "from-server.safetensors"
        out.write_bytes(file.body)
        path = self.dir / "scene8"
        path.write_bytes(data)
        mine = self.dir / "from-program.safetensors"
        subprocess.run([BIN / "chiasm", "encode", "-m", self.halves / "vision", path, "-o", mine, "--features", "none"],
                       check=True, capture_output=True)
        compared = subprocess.run([BIN / "chiasm", "compare", out, mine, "--json"], capture_output=True, check=True)
        self.assertEqual(json.loads(compared.stdout)["max_abs"], 0)
        feature_id = file.headers["X-Feature-Id"]
        described = self.ok(eye.ask("POST", "/v1/features", data, {"Accept": "application/json"}))
        self.assertEqual(described["id"], feature_id)
        self.assertEqual(eye.ask("GET", f"/v1/features/{feature_id}").body, file.body)
        self.error(eye.ask("GET", "/v1/features/" + "0" * 64), 404)
        self.error(eye.ask("POST", "/v1/features", b"no picture"), 400)
        self.error(eye.ask("POST", "/v1/chat/completions", chat("x")), 404)

    def test_each_half_holds_its_own_weights(self):
        """Resident size against what inspect says, with weights large enough to see."""
        if any(name in (BIN / "chiasm-vision").read_bytes() for name in (b"__asan_init", b"__tsan_init")):
            self.skipTest("a sanitizer's own memory would be measured")
        model = self.dir / "wide"
        maker = pathlib.Path(__file__).resolve().parents[2] / "tools" / "make_checkpoint.py"
        try:
            import numpy  # noqa: F401: the maker writes 300 MB in seconds with it, in minutes without
        except ImportError:
            self.skipTest("python3-numpy is not installed: the checkpoint would take minutes to write")
        subprocess.run([sys.executable, maker, model, "--shape", "2b", "--tokenizer", MODEL, "--vision-layers", "8", "--layers", "4"],
                       check=True, capture_output=True)
        said = json.loads(subprocess.run([BIN / "chiasm", "inspect", model, "--json"], capture_output=True, check=True).stdout)
        bytes_of = {part: said["parts"][part]["bytes"] for part in ("vision", "language")}
        eye = self.start("chiasm-vision", "-m", model, "--features", "none")
        language = self.start("chiasm-language", "-m", model, "--vision", eye.url, "--features", "none")
        self.ok(language.ask("POST", "/v1/chat/completions", chat("x", picture(0)[0], model="wide", max_tokens=2)))
        for server, own, other in ((eye, "vision", "language"), (language, "language", "vision")):
            status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
            resident = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024
            self.assertGreater(resident, bytes_of[own] * 0.9)
            # What is neither weights: program, libraries, one picture's pass. Half of the other half would show.
            self.assertLess(resident, bytes_of[own] + bytes_of[other] // 2)


if __name__ == "__main__":
    servers.main()
