#!/usr/bin/env python3
"""What deploy/ and docs/deploy.md say of the servers, tried on them: option files, keys, probes, metrics, the commands for
certificates, the order of a model's update.

usage: servers_test.py BIN MODEL [unittest arguments]
"""
import http.client
import json
import re
import shutil
import ssl
import struct
import sys
import urllib.parse

import deploy
from deploy import BIN, DEPLOY, GUIDE, MODEL, DeployTest, config_of, read, run

sys.path.insert(0, str(deploy.ROOT / "tests" / "serve"))
import servers  # noqa: E402  (it reads BIN and MODEL from the command line as well)

API_KEYS = "# of the clients\nkey-of-a-client-0123456789\n\nkey-of-the-monitoring-0123\n"
ROLE_KEYS = "key-between-the-roles-0123\nkey-of-the-monitoring-4567\n"


def bearer(key):
    return {"Authorization": "Bearer " + key}


class ServersTest(DeployTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.api_keys, cls.role_keys = cls.dir / "api-keys", cls.dir / "role-keys"
        cls.api_keys.write_text(API_KEYS, encoding="utf-8")
        cls.role_keys.write_text(ROLE_KEYS, encoding="utf-8")
        cls.halves = cls.split(MODEL, "halves")

    @classmethod
    def split(cls, model, name):
        done = run(BIN / "chiasm", "split", model, cls.dir / name)
        assert done.returncode == 0, done.stdout
        return cls.dir / name

    def start(self, program, *options, **more):
        server = servers.Server(program, *options, env={"XDG_CACHE_HOME": str(self.dir / "cache" / self.id())}, **more)
        self.addCleanup(server.end, servers.signal.SIGKILL)
        return server

    def ask(self, server, headers=None, scene=4):
        """The answer to a question about a picture, and what was right."""
        data, questions = servers.picture(scene)
        question, answer = questions[0]
        model = server.ask("GET", "/v1/models", headers=headers).json()["data"][0]["id"]
        return server.ask("POST", "/v1/chat/completions", {**servers.chat(question, data), "model": model}, headers), answer

    def right(self, server, headers=None, scene=4):
        got, answer = self.ask(server, headers, scene)
        self.assertEqual(got.status, 200, got.body)
        self.assertEqual(got.json()["choices"][0]["message"]["content"], answer)


class OptionFiles(ServersTest):
    def with_file(self, name, program, *options):
        """The program with an option file as it is shipped; what a machine has elsewhere is named on the command line."""
        return self.start(program, "--config", DEPLOY / name, *options)

    def ends(self, server, name):
        """In order, and its log is as the option file says."""
        self.assertEqual(server.end(), 0)
        lines = [line for line in server.log if line.strip()]
        try:
            events = [json.loads(line).get("event") for line in lines]
        except ValueError:
            self.fail(f"{name}: log-format = \"json\" has no effect: {lines}")
        self.assertEqual(events[-1], "ended")

    def test_one_process(self):
        server = self.with_file("systemd/chiasm.toml", "chiasm serve", "--model", MODEL, "--api-key-file", self.api_keys)
        self.right(server, bearer("key-of-a-client-0123456789"))
        self.ends(server, "systemd/chiasm.toml")

    def test_two_roles(self):
        for folder in ("systemd", "kubernetes"):
            vision = self.with_file(f"{folder}/vision.toml", "chiasm-vision", "--model", self.halves / "vision",
                                    "--api-key-file", self.role_keys)
            language = self.with_file(f"{folder}/language.toml", "chiasm-language", "--model", self.halves / "language",
                                      "--api-key-file", self.api_keys, "--vision", vision.url,
                                      "--vision-key-file", self.role_keys)
            key = bearer("key-of-a-client-0123456789")
            self.right(language, key)
            name = language.ask("GET", "/v1/models", headers=key).json()["data"][0]["id"]
            config = config_of(DEPLOY / f"{folder}/language.toml")
            self.assertEqual(f'"{name}"', config.get("served-model-name", '"language"'))
            # Every line of a key file is good; what the pages call open is.
            for server, good in ((vision, ROLE_KEYS), (language, API_KEYS)):
                for line in good.split():
                    if len(line) > 16:
                        self.assertEqual(server.ask("GET", "/metrics", headers=bearer(line)).status, 200)
                for path in ("/metrics", "/version"):
                    self.assertEqual(server.ask("GET", path).status, 401)
                    self.assertEqual(server.ask("GET", path, headers=bearer("key-of-a-stranger-01234567")).status, 401)
                for path in ("/health/live", "/health/ready"):
                    self.assertEqual(server.ask("GET", path).status, 200)
            self.ends(language, f"{folder}/language.toml")
            self.ends(vision, f"{folder}/vision.toml")

    def test_a_misspelt_option_is_an_error(self):
        wrong = self.dir / "wrong.toml"
        wrong.write_text('listne = ":0"\n', encoding="utf-8")
        for program in deploy.PROGRAMS:
            name, *rest = program.split()
            vision = ["--vision", "http://localhost:1"] if program == "chiasm-language" else []
            with self.subTest(program):
                done = run("timeout", "10", BIN / name, *rest, "--config", wrong, "--listen", "127.0.0.1:0",
                           "--model", MODEL, *vision)
                self.assertEqual(done.returncode, 2, done.stdout)
                self.assertIn("listne", done.stdout)

    def test_the_example_secret_is_refused(self):
        key = re.search(r"\|\n    (\S+)", read(DEPLOY / "kubernetes/secret.example.yaml")).group(1)
        file = self.dir / "example"
        file.write_text(key + "\n", encoding="utf-8")
        done = run("timeout", "10", BIN / "chiasm-vision", "--listen", "127.0.0.1:0", "--model", MODEL, "--api-key-file", file)
        self.assertEqual(done.returncode, 1, done.stdout)


class Pages(ServersTest):
    def test_metrics_exist(self):
        vision = self.start("chiasm-vision", "--model", self.halves / "vision")
        language = self.start("chiasm-language", "--model", self.halves / "language", "--vision", vision.url)
        self.right(language)
        there = set()
        for server in (vision, language):
            text = server.ask("GET", "/metrics").body.decode()
            there |= {line.split("{")[0].split(" ")[0] for line in text.splitlines() if not line.startswith("#")}
        # A counter with labels appears with its first event; its name stands in the sources.
        for source in (deploy.ROOT / "src/roles").glob("*.cpp"):
            there |= set(re.findall(r'"(chiasm_\w+_total)"', read(source)))
        there |= {name.removesuffix("_bucket") for name in there}
        named = set()
        for path in (GUIDE, DEPLOY / "prometheus/alerts.yml", DEPLOY / "kubernetes/autoscale.yaml"):
            named |= set(re.findall(r"\b(?:chiasm_|vllm:)\w+", read(path)))
        self.assertGreater(len(named), 15)
        self.assertEqual(named - there, set())

    def test_probes_ask_for_routes_that_are_there(self):
        server = self.start("chiasm serve")
        paths = {path for name in ("vision", "language")
                 for path in re.findall(r"path: (/health\S+)", read(DEPLOY / f"kubernetes/{name}.yaml"))}
        paths |= set(re.findall(r"uri (/health\S+)", read(DEPLOY / "haproxy/haproxy.cfg")))
        self.assertEqual(paths, {"/health/live", "/health/ready"})
        for path in paths | set(re.findall(r"`(?:GET )?(/(?:metrics|health/\w+|v1/status))`", read(GUIDE))):
            self.assertEqual(server.ask("GET", path).status, 200, path)
        self.assertEqual(server.ask("GET", "/health/nothing").status, 404)

    def test_chiasm_ready(self):
        script = DEPLOY / "compose/chiasm-ready"
        server = self.start("chiasm serve")
        self.ok(run("bash", script, server.port))
        self.assertEqual(server.end(), 0)
        self.assertNotEqual(run("bash", script, server.port).returncode, 0)
        self.assertNotEqual(run("bash", script).returncode, 0)


class Certificates(ServersTest):
    def test_the_commands_of_the_page(self):
        self.tool("openssl", "openssl")
        commands = re.search(r"```sh\n(.*?)```", read(GUIDE), re.DOTALL).group(1)
        folder = self.dir / "tls"
        folder.mkdir()
        self.ok(run("bash", "-euc", commands, cwd=folder))
        lines = [line for line in re.findall(r"^    (chiasm-\w+ .*(?:tls|https).*)$", read(GUIDE), re.MULTILINE)]
        self.assertEqual(len(lines), 2)

        def options(line, *without):
            words = [str(folder / word) if word.endswith((".pem", ".key")) else word for word in line.split()[1:]]
            for option in without:
                at = words.index(option)
                del words[at:at + 2]
            return words

        vision = self.start("chiasm-vision", "--model", self.halves / "vision", *options(lines[0], "--listen"))
        self.assertTrue(vision.url.startswith("https://"))
        port = urllib.parse.urlsplit(vision.url).port
        for host in ("localhost", "127.0.0.1"):
            # The names in the certificate are those that the page has; vision-a is not a name of this machine.
            language = self.start("chiasm-language", "--model", self.halves / "language", "--vision", f"https://{host}:{port}",
                                  *options(lines[1], "--vision"), "--features", "none")
            self.right(language)
        # Strangers: without a certificate, and a language server that does not trust the CA.
        trusting = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=trusting, timeout=60)
        with self.assertRaises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
            connection.request("GET", "/v1/info")
            connection.getresponse()
        connection.close()
        trusting.load_cert_chain(folder / "language-a.pem", folder / "language-a.key")
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=trusting, timeout=60)
        connection.request("GET", "/v1/info")
        self.assertEqual(connection.getresponse().status, 200)
        connection.close()
        doubting = self.start("chiasm-language", "--model", self.halves / "language", "--vision", f"https://localhost:{port}",
                              *options(lines[1], "--vision", "--vision-ca"), "--features", "none")
        got, _ = self.ask(doubting)
        self.assertEqual((got.status, got.json()["error"]["code"]), (503, "vision_unavailable"))


class Updates(ServersTest):
    """What "Restarts and new models" says."""

    def other_eye(self):
        """A vision half with one other weight, and so another digest."""
        folder = self.dir / "other"
        shutil.copytree(MODEL, folder, ignore=shutil.ignore_patterns("eval", "recipe"))
        for path in sorted(folder.glob("*.safetensors")):
            data = bytearray(path.read_bytes())
            size = struct.unpack("<Q", data[:8])[0]
            for name, tensor in json.loads(data[8:8 + size]).items():
                if name.startswith("visual."):
                    data[8 + size + tensor["data_offsets"][0]] ^= 1
                    path.write_bytes(data)
                    return self.split(folder, "other-halves")
        raise AssertionError("the demo model has no vision tensor")

    def states(self, language):
        return [server["state"] for server in language.ask("GET", "/v1/status").json()["vision_servers"]]

    def test_new_vision_weights(self):
        other = self.other_eye()
        old = self.start("chiasm-vision", "--model", self.halves / "vision")
        new = self.start("chiasm-vision", "--model", other / "vision")
        both = f"{new.url},{old.url}"
        before = self.start("chiasm-language", "--model", self.halves / "language", "--vision", both, "--features", "none")
        after = self.start("chiasm-language", "--model", other / "language", "--vision", both, "--features", "none")
        for scene in (4, 5, 6):
            self.right(before, scene=scene)
            self.assertEqual(self.ask(after, scene=scene)[0].status, 200)
        self.assertEqual(self.states(before), ["mismatch", "healthy"])
        self.assertEqual(self.states(after), ["healthy", "mismatch"])
        self.assertTrue(any("kept out" in line for line in before.log))

        gap = self.start("chiasm-language", "--model", self.halves / "language", "--vision", new.url, "--features", "none")
        got, _ = self.ask(gap)
        self.assertEqual((got.status, got.json()["error"]["code"]), (409, "model_mismatch"))
        digests = [json.loads(run(BIN / "chiasm", "inspect", folder / "language", "--json").stdout)["vision_digest"]
                   for folder in (self.halves, other)]
        for digest in digests:
            self.assertIn(digest, got.json()["error"]["message"])


if __name__ == "__main__":
    deploy.main()
