"""Engines that are Python packages: each in an environment of its own below build/peers, asked by a small driver there.

A package that cannot be installed, or does not run on this processor, is skipped with its own last words.
"""
import pathlib
import subprocess
import sys

import sample

HERE = pathlib.Path(__file__).resolve().parent


def environment(work, name, packages, say):
    """The Python of build/peers/NAME, with the packages in it."""
    folder = work / name
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.exists() and ready.read_text(encoding="utf-8") == " ".join(packages):
        return python
    say(f"installing {', '.join(packages)} into {folder}")
    log = work / f"{name}.log"
    with open(log, "w", encoding="utf-8") as out:
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder)], stdout=out, stderr=subprocess.STDOUT, check=False)
        done = subprocess.run([str(python), "-m", "pip", "install", "--disable-pip-version-check", *packages], stdout=out, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        raise sample.Skipped(f"pip cannot install {packages[0]}: {lines[-1][:200] if lines else 'no message'}")
    ready.write_text(" ".join(packages), encoding="utf-8")
    return python


class PythonEngine:
    """`driver` is a file beside this one; it prints a sample as its last line. Asked to --check, with the checkpoint and
    its own arguments, it ends with a message where it cannot run, and makes what it needs of the checkpoint."""

    def __init__(self, setup, name, driver, packages, arguments=()):
        self.setup, self.name, self.driver, self.packages, self.arguments = setup, name, HERE / driver, packages, list(arguments)

    def prepare(self):
        self.python = environment(self.setup.work, self.driver.stem.removesuffix("_driver"), self.packages, self.setup.say)
        self.run("--check", self.setup.checkpoint, *self.arguments)

    def run(self, *words):
        """What the driver prints, and its peak of resident memory."""
        s = self.setup
        env = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(s.threads), "OPENVINO_MODELS": str(s.work / "weights"), "PYTHONPATH": str(HERE / "beside_cpu_torch")}
        return sample.run_measured([self.python, self.driver, *words], env={**s.env, **env})

    def tool(self):
        s = self.setup
        text, peak = self.run(s.checkpoint, s.picture, s.question, s.tokens, s.threads, *self.arguments)
        return {**sample.of_json_line(text), "peak_mib": peak}

    server = None


class GgufEngine(PythonEngine):
    """A package with the libraries of llama.cpp or ik_llama.cpp in it, on GGUF files: no build, but what its makers built."""

    def __init__(self, setup, name, driver, packages, language, vision=None, vision_program=None):
        super().__init__(setup, name, driver, packages)
        self.language_type, self.vision_type, self.vision_program = language, vision, vision_program

    def prepare(self):
        super().prepare()
        self.vision = self.setup.gguf("vision", self.vision_type)
        self.language = self.setup.quantised(self.language_type)
        # What has no vision part is asked for as many text tokens as the picture's prompt has.
        self.arguments = [self.language, self.vision] if self.driver.stem == "llama_driver" else [self.language, self.setup.picture_tokens + 25]

    def tool(self):
        out = super().tool()
        if self.vision_program:
            text, peak = sample.run_measured([self.vision_program, self.vision, self.setup.threads, 448])
            out |= {"encode_ms": sample.of_json_line(text)["encode_ms"], "peak_mib": max(peak, out["peak_mib"])}
        return out
