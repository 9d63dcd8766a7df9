#!/usr/bin/env python3
"""deploy/ and docs/deploy.md against the programs and each other: options, ports, probes, times, metrics, error codes.

usage: check_deploy.py BIN MODEL [unittest arguments]      needs the Python standard library only
"""
import re

import deploy
from deploy import DEPLOY, GUIDE, PROGRAMS, ROOT, DeployTest, config_of, help_of, options_of, read

# Options of other programs that the files and the page use.
FOREIGN = {
    "--build", "--chmod", "--from", "--from-file", "--home-dir", "--network", "--no-create-home",
    "--no-install-recommends", "--now", "--shell", "--strip-debug", "--target", "--test-dir", "--uid", "--user-group",
}
CONFIGS = {"systemd/chiasm.toml": "chiasm serve", "systemd/vision.toml": "chiasm-vision",
           "systemd/language.toml": "chiasm-language", "kubernetes/vision.toml": "chiasm-vision",
           "kubernetes/language.toml": "chiasm-language"}
COMMANDS = ("ask", "encode", "inspect", "compare", "split", "eval", "serve")
VISION_PORT, LANGUAGE_PORT = "9001", "8080"


def seconds(text):
    return int(re.fullmatch(r"(\d+)s?", text.strip()).group(1))


class Options(DeployTest):
    def test_every_option_exists(self):
        known = set(FOREIGN)
        for program in (*PROGRAMS, *(f"chiasm {command}" for command in COMMANDS)):
            known |= options_of(program)
        for path in (GUIDE, *deploy.files()):
            for option in set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", read(path))):
                self.assertIn(option, known, f"{path.relative_to(ROOT)} names an option that no program has")

    def test_commands_have_the_options_of_their_program(self):
        found = 0
        for path in (GUIDE, *DEPLOY.glob("systemd/*.service")):
            text = read(path).replace("\\\n", " ")
            for line in text.splitlines():
                line = re.sub(r"\s{2,}#.*", "", line.strip())
                match = re.match(r"(?:ExecStart=/usr/local/bin/)?(chiasm serve|chiasm-vision|chiasm-language) (--.*)", line)
                if not match:
                    continue
                found += 1
                for option in re.findall(r"(?<!\S)--[a-z][a-z0-9-]+", match.group(2)):
                    self.assertIn(option, options_of(match.group(1)), line)
        self.assertGreaterEqual(found, 5)

    def test_compose_commands(self):
        text = read(DEPLOY / "compose/compose.yaml")
        blocks = re.findall(r"target: (\S+)\n\s+command:\n((?:\s+- --.*\n)+)", text)
        self.assertEqual({program for program, _ in blocks}, {"chiasm-vision", "chiasm-language"})
        for program, block in blocks:
            for option in re.findall(r"- (--[a-z-]+)=", block):
                self.assertIn(option, options_of(program))

    def test_option_files(self):
        self.assertEqual({str(path.relative_to(DEPLOY)) for path in DEPLOY.rglob("*.toml")}, set(CONFIGS))
        for name, program in CONFIGS.items():
            for key in config_of(DEPLOY / name):
                self.assertIn("--" + key, options_of(program), name)

    def test_the_limits_table_has_the_programs_defaults(self):
        rows = re.findall(r"^\| `(--[a-z-]+)` \| (\S+) \| ([VL ]+) \|", read(GUIDE), re.MULTILINE)
        self.assertGreater(len(rows), 20)
        for option, default, where in rows:
            programs = {"V": "chiasm-vision", "L": "chiasm-language"}
            for letter, program in programs.items():
                if letter in where.split():
                    self.assertIn(option, options_of(program))
            self.assertIn(option, options_of("chiasm serve"))
            # The help of an option reaches to the next one; lines are joined.
            entry = re.search(rf"^  (?:-\w,)?{option} .*?(?=^  -|^\S|\Z)", help_of("chiasm serve"),
                              re.MULTILINE | re.DOTALL)
            said = re.search(r"\(default: ([^),]+)", " ".join(entry.group(0).split()))
            self.assertIsNotNone(said, option)
            self.assertEqual(said.group(1), default, option)
        # Nothing that limits is left out.
        limits = {option for program in PROGRAMS for option in options_of(program)
                  if option.startswith("--max-") or option.endswith("-timeout")} - {"--max-pixels"}
        self.assertEqual(limits - {option for option, _, _ in rows}, set())


class Agreement(DeployTest):
    def test_ports(self):
        for name, program in CONFIGS.items():
            config = config_of(DEPLOY / name)
            port = VISION_PORT if program == "chiasm-vision" else LANGUAGE_PORT
            self.assertTrue(config["listen"].endswith(f':{port}"'), name)
            for url in re.findall(r"http://\S+?:(\d+)", config.get("vision", "")):
                self.assertEqual(url, VISION_PORT, name)
        for role, port in (("vision", VISION_PORT), ("language", LANGUAGE_PORT)):
            manifest = read(DEPLOY / f"kubernetes/{role}.yaml")
            self.assertEqual(re.findall(r"containerPort: (\d+)", manifest), [port])
            self.assertEqual(re.findall(r"\bport: (\d+)", manifest), [port])
        self.assertEqual(re.findall(r"port: (\d+)", read(DEPLOY / "kubernetes/network.yaml")), [VISION_PORT])
        compose = read(DEPLOY / "compose/compose.yaml")
        self.assertEqual(re.findall(r"listen=0.0.0.0:(\d+)", compose), [VISION_PORT, LANGUAGE_PORT])
        self.assertEqual(re.findall(r'chiasm-ready, "(\d+)"', compose), [VISION_PORT, LANGUAGE_PORT])
        self.assertEqual(set(re.findall(r"http://vision-\w:(\d+)", compose)), {VISION_PORT})
        servers = re.findall(r"^\s+server \S+ [\d.]+:(\d+)", read(DEPLOY / "haproxy/haproxy.cfg"), re.MULTILINE)
        self.assertEqual(set(servers), {LANGUAGE_PORT})
        scraped = read(DEPLOY / "prometheus/prometheus.yml")
        self.assertEqual(re.findall(r'"10\.0\.0\.1\d:(\d+)"', scraped), [LANGUAGE_PORT])
        self.assertEqual(set(re.findall(r'"10\.0\.0\.2\d:(\d+)"', scraped)), {VISION_PORT})

    def test_names_of_vision_servers(self):
        manifest = read(DEPLOY / "kubernetes/vision.yaml")
        replicas = int(re.search(r"kind: StatefulSet.*?replicas: (\d+)", manifest, re.DOTALL).group(1))
        listed = re.findall(r'"http://(\S+?):', config_of(DEPLOY / "kubernetes/language.toml")["vision"])
        self.assertEqual(listed, [f"chiasm-vision-{i}.chiasm-vision" for i in range(replicas)])
        compose = read(DEPLOY / "compose/compose.yaml")
        for name in re.findall(r"http://(vision-\w):", compose):
            self.assertRegex(compose, rf"\n  {name}:\n")

    def test_time_to_end(self):
        for name in ("kubernetes/vision", "kubernetes/language"):
            manifest = read(DEPLOY / f"{name}.yaml")
            grace = int(re.search(r"terminationGracePeriodSeconds: (\d+)", manifest).group(1))
            sleeps = sum(map(int, re.findall(r'"sleep", "(\d+)"', manifest)))
            self.assertGreaterEqual(grace, sleeps + seconds(config_of(DEPLOY / f"{name}.toml")["drain-timeout"]) + 10, name)
        for unit in DEPLOY.glob("systemd/*.service"):
            text = read(unit)
            config = re.search(r"--config /etc/chiasm/(\S+)", text).group(1)
            stop = seconds(re.search(r"^TimeoutStopSec=(.*)", text, re.MULTILINE).group(1))
            self.assertGreaterEqual(stop, seconds(config_of(DEPLOY / "systemd" / config)["drain-timeout"]) + 10, unit.name)
        compose = read(DEPLOY / "compose/compose.yaml")
        self.assertNotIn("--drain-timeout=", compose)
        self.assertGreaterEqual(seconds(re.search(r"stop_grace_period: (\S+)", compose).group(1)), 30 + 10)

    def test_haproxy_waits_as_long_as_the_servers(self):
        config = read(DEPLOY / "haproxy/haproxy.cfg")
        times = dict(re.findall(r"^\s+timeout (\S+) (\d+s)", config, re.MULTILINE))
        limit = int(re.search(r"\| `--request-timeout` \| (\d+)", read(GUIDE)).group(1))
        self.assertGreater(seconds(times["server"]), limit)
        self.assertGreater(seconds(times["client"]), limit)
        self.assertEqual(re.findall(r"retry-on (.*)", config), ["conn-failure"])
        permits = int(re.search(r"\| `--max-requests` \| (\d+)", read(GUIDE)).group(1))
        self.assertLessEqual(sum(map(int, re.findall(r"default-server .*maxconn (\d+)", config))), permits)
        backends = [re.findall(r"^\s+server (\S+) (\S+)", part, re.MULTILINE)
                    for part in re.split(r"^backend ", config, flags=re.MULTILINE)[1:]]
        self.assertEqual(backends[0], backends[1])

    def test_containers_compute_with_what_they_have(self):
        for role in ("vision", "language"):
            limit = re.search(r'limits:\s+cpu: "(\d+)"', read(DEPLOY / f"kubernetes/{role}.yaml")).group(1)
            self.assertEqual(config_of(DEPLOY / f"kubernetes/{role}.toml")["threads"], limit, role)

    def test_features_fit_their_volume(self):
        for role, pattern in (("vision", r"storage: (\d+)Gi"), ("language", r"sizeLimit: (\d+)Gi")):
            volume = int(re.search(pattern, read(DEPLOY / f"kubernetes/{role}.yaml")).group(1))
            size = re.fullmatch(r'"(\d+)GiB"', config_of(DEPLOY / f"kubernetes/{role}.toml")["features-size"])
            self.assertGreater(volume, int(size.group(1)) * 17 / 16, role)

    def test_secrets(self):
        example = read(DEPLOY / "kubernetes/secret.example.yaml")
        for role, key in (("vision", "api-key-file"), ("language", "api-key-file"), ("language", "vision-key-file")):
            path = config_of(DEPLOY / f"kubernetes/{role}.toml")[key].strip('"')
            folder, _, name = path.rpartition("/")
            self.assertIn(f"mountPath: {folder}\n", read(DEPLOY / f"kubernetes/{role}.yaml"))
            self.assertIn(f"\n  {name}: |", example)
        for key in re.findall(r"\|\n    (\S+)", example):
            self.assertLess(len(key), 16, "the placeholder must not be a key that servers take")


class Pages(DeployTest):
    def test_every_error_code_is_explained(self):
        table = re.findall(r"\{ErrorKind::k\w+, (\d+), (?:\w+|\"\w+\"), \"(\w*)\"", read(ROOT / "src/api/error.cpp"))
        self.assertGreater(len(table), 10)
        expected = {(status, code) for status, code in table} | {("404", "model_not_found")}
        rows = re.findall(r"^\| (\d{3}) \| (?:`(\w+)`|\(null\)) \|", read(GUIDE), re.MULTILINE)
        self.assertEqual(set(rows), expected)

    def test_files_that_are_named_exist(self):
        text = read(GUIDE)
        for name in re.findall(r"`?\b((?:deploy/)?(?:systemd|compose|kubernetes|haproxy|prometheus)/[\w.-]+\.\w+)", text):
            self.assertTrue((DEPLOY / name.removeprefix("deploy/")).exists(), name)
        for folder in re.findall(r"^\| `(\w+)/` \|", text, re.MULTILINE):
            self.assertTrue((DEPLOY / folder).is_dir(), folder)
        self.assertEqual(set(re.findall(r"^\| `(\w+)/` \|", text, re.MULTILINE)), {p.name for p in DEPLOY.iterdir()})


if __name__ == "__main__":
    deploy.main()
