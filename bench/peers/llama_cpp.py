"""llama.cpp and ik_llama.cpp: their own llama-mtmd-cli and llama-server, on GGUF files made from the same checkpoint.

A build of either is named by option, or llama.cpp is built here from the source that the package llama-cpp-python brings
(run.py --build). Without a build, run.py uses packages with their libraries (python_engines.GgufEngine).
"""
import os
import subprocess
import tarfile

import sample

PROGRAMS = ("llama-mtmd-cli", "llama-server", "llama-quantize")
# No network, no page for the server, and only the programs that are asked.
OPTIONS = ["-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF", "-DLLAMA_BUILD_UI=OFF",
           "-DLLAMA_USE_PREBUILT_UI=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_APP=OFF"]


def find_programs(folder):
    """The folder with the programs: the named one, or bin/ or build/bin/ in it."""
    for inner in (folder, folder / "bin", folder / "build" / "bin"):
        if (inner / PROGRAMS[0]).exists():
            return inner
    raise sample.Skipped(f"{folder} has no {PROGRAMS[0]} (looked there, in bin/ and in build/bin/)")


def build(work, say):
    """Builds llama.cpp from the source package; the folder of its programs."""
    folder = work / "llama.cpp"
    if not (folder / "bin" / PROGRAMS[-1]).exists() or not (folder / "bin" / PROGRAMS[0]).exists():
        say("llama.cpp: fetching the source package llama-cpp-python (80 MB)")
        log = open(work / "llama.cpp.log", "w", encoding="utf-8")

        def run(*command, env=None):
            if subprocess.run([str(w) for w in command], stdout=log, stderr=subprocess.STDOUT, env=env).returncode != 0:
                raise sample.Skipped(f"'{command[0]} {command[1]} ...' failed, see {log.name}")
        run("python3", "-m", "pip", "download", "--no-deps", "--no-binary", "llama-cpp-python", "-d", work / "source", "llama-cpp-python")
        package = sorted((work / "source").glob("llama_cpp_python-*.tar.gz"))[-1]
        with tarfile.open(package) as archive:
            archive.extractall(work / "source", filter="data") if hasattr(tarfile, "data_filter") else archive.extractall(work / "source")
        source = work / "source" / package.name.removesuffix(".tar.gz") / "vendor" / "llama.cpp"
        say("llama.cpp: building it for this machine (twenty minutes and more on 2 cores; build/peers/llama.cpp.log has the progress)")
        run("cmake", "-S", source, "-B", folder, "-G", "Ninja", *OPTIONS)
        run("nice", "-n", "10", "ninja", "-C", folder, "-j", os.cpu_count(), *PROGRAMS)
    return folder / "bin"


class LlamaCpp:
    """One of the two, with weights of one kind."""

    def __init__(self, setup, title, folder, language, vision, extra=()):
        self.setup, self.title, self.folder, self.extra = setup, title, folder, list(extra)
        self.language_type, self.vision_type = language, vision
        # llama.cpp of 2026 says how long prefill and decode took only where it is asked; the fork always does.
        self.telling = ["--perf", "-lv", 4] if title == "llama.cpp" else []
        self.name = f"{title} {language.upper()}/{vision.upper()}" + (" " + " ".join(extra) if extra else "")

    def prepare(self):
        s = self.setup
        self.bin = find_programs(self.folder) if self.folder else build(s.work, s.say)
        self.vision = s.gguf("vision", self.vision_type)
        whole = s.gguf("language", "f16")
        self.language = whole
        if self.language_type != "f16":
            self.language = whole.with_name(f"language-{self.language_type}.gguf")
            if not self.language.exists():
                s.say(f"{self.title}: quantising the language model to {self.language_type.upper()}")
                part = self.language.with_suffix(".part")
                sample.run_measured([self.bin / "llama-quantize", whole, part, self.language_type.upper(), s.threads])
                part.rename(self.language)

    def tool(self):
        s = self.setup
        text, peak = sample.run_measured(
            [self.bin / "llama-mtmd-cli", "-m", self.language, "--mmproj", self.vision, "--image", s.picture, "-p", s.question, "-n", s.tokens,
             "-t", s.threads, "-c", 2048, "--temp", 0, *self.extra, *self.telling])
        return {**sample.of_mtmd(text), "peak_mib": peak}

    def server(self, port):
        s = self.setup
        return [self.bin / "llama-server", "-m", self.language, "--mmproj", self.vision, "-t", s.threads, "-c", 2048, "-np", 1,
                "--host", "127.0.0.1", "--port", port, *self.extra]
