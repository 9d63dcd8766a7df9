"""What the checks of deploy/ and docs/deploy.md share: where things lie, what the programs say, skipping. Standard library
only."""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY, GUIDE = ROOT / "deploy", ROOT / "docs" / "deploy.md"
BIN, MODEL = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
PROGRAMS = ("chiasm serve", "chiasm-vision", "chiasm-language")
SKIPPED = 77  # as CMakeLists.txt tells ctest


def read(path):
    return pathlib.Path(path).read_text(encoding="utf-8")


def files():
    """Every file of deploy/."""
    return sorted(path for path in DEPLOY.rglob("*") if path.is_file() and "secrets" not in path.parts)


_help = {}


def help_of(program):
    """The text of `program --help`; program may be 'chiasm COMMAND'."""
    if program not in _help:
        name, *rest = program.split()
        done = subprocess.run([BIN / name, *rest, "--help"], capture_output=True, encoding="utf-8", check=True, timeout=60)
        _help[program] = done.stdout
    return _help[program]


def options_of(program):
    """{'--listen', ...}: what stands at the beginning of a line of its help."""
    return set(re.findall(r"^  (?:-\w,)?(--[a-z][a-z0-9-]*)", help_of(program), re.MULTILINE))


def config_of(path):
    """{key: text of its value} of an option file."""
    out = {}
    for line in read(path).splitlines():
        if line.strip() and not line.startswith("#"):
            key, value = line.split("=", 1)
            out[key.strip()] = value.strip()
    return out


def run(*command, **more):
    """The finished process; its output is shown when a test says so."""
    return subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          encoding="utf-8", timeout=240, **more)


class DeployTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = pathlib.Path(tempfile.mkdtemp(prefix="chiasm-deploy-"))
        cls.addClassCleanup(shutil.rmtree, cls.dir, ignore_errors=True)

    def tool(self, name, package):
        """Where the tool is; skips the test where it is not installed."""
        found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if found is None:
            self.skipTest(f"{name} is not installed (package {package})")
        return found

    def ok(self, done):
        self.assertEqual(done.returncode, 0, f"{' '.join(done.args)}\n{done.stdout}")
        return done.stdout


def main():
    """Exits with SKIPPED where every test was skipped, and says why for each that was."""
    program = unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=2, exit=False)
    result = program.result
    for test, why in result.skipped:
        print(f"SKIP: {test.id().rsplit('.', 1)[-1]}: {why}")
    if not result.wasSuccessful():
        sys.exit(1)
    sys.exit(SKIPPED if result.testsRun == len(result.skipped) else 0)
