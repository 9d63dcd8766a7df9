#!/usr/bin/env python3
"""Each file of deploy/ by the tool that reads it: systemd, compose, Kubernetes, Prometheus. Skips say what is missing.

usage: tools_test.py BIN MODEL [Systemd | Compose | Kubernetes | Prometheus]
"""
import os
import pathlib
import re
import shutil

import deploy
from deploy import BIN, DEPLOY, DeployTest, read, run


class Systemd(DeployTest):
    MOST_EXPOSED = 15  # of 100, as systemd-analyze security counts; it is 11

    def units(self):
        """Copies that start the programs of this build."""
        out = []
        for unit in sorted((DEPLOY / "systemd").glob("*.service")):
            copy = self.dir / unit.name
            copy.write_text(read(unit).replace("/usr/local/bin/", f"{BIN}/"), encoding="utf-8")
            out.append(copy)
        self.assertEqual(len(out), 3)
        return out

    def test_verify(self):
        analyze = self.tool("systemd-analyze", "systemd")
        for unit in self.units():
            self.assertEqual(self.ok(run(analyze, "verify", "--man=no", unit)), "")

    def test_security(self):
        analyze = self.tool("systemd-analyze", "systemd")
        for unit in self.units():
            self.ok(run(analyze, "security", "--offline=yes", f"--threshold={self.MOST_EXPOSED}", "--no-pager", unit))


class Compose(DeployTest):
    def test_config(self):
        compose = shutil.which("docker-compose")
        docker = shutil.which("docker")
        if compose:
            command = [compose]
        elif docker and run(docker, "compose", "version").returncode == 0:
            command = [docker, "compose"]
        else:
            self.skipTest("neither docker-compose (package docker-compose) nor docker compose is installed")
        file = DEPLOY / "compose/compose.yaml"
        environment = {**os.environ, "CHIASM_MODEL_DIR": "/srv/chiasm/model"}
        text = self.ok(run(*command, "-f", file, "config", env=environment))
        for service in ("language", "vision-a", "vision-b"):
            self.assertRegex(text, rf"\n  {service}:\n")
        self.assertRegex(text, r"/srv/chiasm/model")
        environment.pop("CHIASM_MODEL_DIR")
        done = run(*command, "-f", file, "config", env=environment)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("the folder that chiasm split wrote", done.stdout)

    def test_packages_are_those_of_the_programs(self):
        """The libraries that a program needs, and no others, are in its image."""
        dpkg, ldd = self.tool("dpkg", "dpkg"), self.tool("ldd", "libc-bin")
        if 'VERSION_ID="12"' not in read("/etc/os-release"):
            self.skipTest("the images are of Debian 12, this is another system")
        text = read(DEPLOY / "compose/Containerfile").replace("\\\n", " ")
        # What is in every debian:12-slim.
        base = {"libc6", "libgcc-s1", "libstdc++6", "zlib1g"}
        installed = {name: set(packages.split()) for name, packages in
                     re.findall(r"AS (\S+)\n(?:[A-Z#].*\n)*?RUN apt-get update.*?--no-install-recommends ([^&]+)", text)}
        self.assertEqual(set(installed), {"runtime", "chiasm", "chiasm-vision", "chiasm-language"})
        for program in ("chiasm", "chiasm-vision", "chiasm-language"):
            libraries = re.findall(r"=> (/\S+)", self.ok(run(ldd, BIN / program)))
            # dpkg knows a file by the path that it was shipped with, which may be any of these.
            paths = {library: (library, "/usr" + library, str(pathlib.Path(library).resolve())) for library in libraries}
            found = dict(reversed(line.split(": ", 1)) for line in
                         run(dpkg, "-S", *(path for some in paths.values() for path in some)).stdout.splitlines()
                         if not line.startswith("dpkg-query"))
            needed = set()
            for library, some in paths.items():
                packages = [found[path].split(":")[0] for path in some if path in found]
                self.assertTrue(packages, f"{program}: no package has {library}")
                needed.add(packages[0])
            needed -= {"libasan8", "libubsan1", "libtsan2"}  # of a build with sanitizers
            has = (installed["runtime"] | installed[program]) - {"ca-certificates"}
            self.assertEqual(has | base, needed | base, program)

    def test_copies_exist(self):
        text = read(DEPLOY / "compose/Containerfile")
        copied = [word for line in re.findall(r"^COPY (?!.*--from)(?:--\S+ )*(.*) \S+$", text, re.MULTILINE)
                  for word in line.split()]
        self.assertGreater(len(copied), 8)
        for name in copied:
            self.assertTrue((deploy.ROOT / name).exists(), name)


class Kubernetes(DeployTest):
    def built(self):
        kubectl, kustomize = shutil.which("kubectl"), shutil.which("kustomize")
        if not (kubectl or kustomize):
            self.skipTest("neither kubectl (package kubernetes-client) nor kustomize is installed")
        command = [kustomize, "build"] if kustomize else [kubectl, "kustomize"]
        return self.ok(run(*command, DEPLOY / "kubernetes"))

    def test_kustomize(self):
        text = self.built()
        kinds = sorted(re.findall(r"^kind: (\S+)", text, re.MULTILINE))
        self.assertEqual(kinds, ["ConfigMap", "ConfigMap", "Deployment", "NetworkPolicy", "PersistentVolumeClaim",
                                 "PodDisruptionBudget", "PodDisruptionBudget", "Service", "Service", "StatefulSet"])
        # The servers mount the generated names, and no namespace is set.
        for role in ("vision", "language"):
            name = re.search(rf"^  name: (chiasm-{role}-\w{{10}})$", text, re.MULTILINE).group(1)
            self.assertIn(f"configMap:\n          name: {name}\n", text)
        self.assertNotRegex(text, r"\n  namespace:")
        self.assertEqual(len(re.findall(r"image: registry.example.org/chiasm-(?:vision|language):", text)), 2)

    def test_schemas(self):
        """Against the published schemas, unknown fields refused."""
        validate = shutil.which("kubernetes-validate")
        if validate is None:
            self.skipTest("kubernetes-validate is not installed (pip install kubernetes-validate)")
        built = self.dir / "built.yaml"
        try:
            built.write_text(self.built(), encoding="utf-8")
            paths = [built]
        except deploy.unittest.SkipTest:
            paths = [DEPLOY / "kubernetes" / f"{name}.yaml" for name in ("vision", "language", "model", "network")]
        paths += [DEPLOY / "kubernetes" / f"{name}.yaml" for name in ("autoscale", "secret.example")]
        text = self.ok(run(validate, "--strict", *paths))
        self.assertIn("statefulset/chiasm-vision", text)
        self.assertNotIn("ERROR", text)


class Prometheus(DeployTest):
    def setUp(self):
        self.promtool = self.tool("promtool", "prometheus")

    def test_config(self):
        text = read(DEPLOY / "prometheus/prometheus.yml")
        for name in re.findall(r"credentials_file: (\S+)", text):
            key = self.dir / pathlib.Path(name).name
            key.write_text("a-key-for-the-monitoring\n", encoding="utf-8")
            text = text.replace(name, str(key))
        (self.dir / "prometheus.yml").write_text(text, encoding="utf-8")
        shutil.copy(DEPLOY / "prometheus/alerts.yml", self.dir)
        self.assertIn("12 rules found", self.ok(run(self.promtool, "check", "config", self.dir / "prometheus.yml")))

    def test_alerts(self):
        self.ok(run(self.promtool, "test", "rules", "alerts_test.yml", cwd=DEPLOY / "prometheus"))


if __name__ == "__main__":
    deploy.main()
