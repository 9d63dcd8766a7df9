#!/usr/bin/env python3
"""Unmodified clients against one process and against the split.

usage: run.py BIN MODEL CLIENTS_DIR [--screenshots DIR]

CLIENTS_DIR holds `venv` (openai for Python) and `node_modules` (openai for Node), as ./dev test --clients makes them; a
client that is not there is skipped, saying so. The last line is 'N passed, N failed, N skipped', in runs of one client.
"""
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "serve"))
import servers  # noqa: E402: it reads BIN and MODEL from the command line

KEY = "key-of-the-clients-test"


def main():
    clients = pathlib.Path(sys.argv[3])
    screenshots = pathlib.Path(sys.argv[sys.argv.index("--screenshots") + 1]) if "--screenshots" in sys.argv else None
    folder = pathlib.Path(tempfile.mkdtemp(prefix="chiasm-clients-"))
    env = {"XDG_CACHE_HOME": str(folder / "cache")}
    keys = folder / "keys"
    keys.write_text(KEY + "\n")
    guarded = ("--api-key-file", keys, "--log-level", "off")
    running, counts = [], {"passed": 0, "failed": 0, "skipped": 0}
    try:
        one = servers.Server("chiasm serve", *guarded, env=env)
        running.append(one)
        eyes = [servers.Server("chiasm-vision", *guarded, "--features", "none", env=env) for _ in range(2)]
        running.extend(eyes)
        split = servers.Server("chiasm-language", *guarded, "--features", "none", "--vision", ",".join(e.url for e in eyes),
                               "--vision-key-file", keys, env=env)
        running.append(split)
        python, node = clients / "venv" / "bin" / "python", shutil.which("node")
        for name, server in (("one process", one), ("the split", split)):
            arguments = [server.url, str(servers.EVAL)]
            runs = {
                "openai for Python": [python, HERE / "python_client.py", *arguments] if python.exists() else None,
                "openai for Node": [node, HERE / "node_client.mjs", *arguments, clients]
                if node and (clients / "node_modules" / "openai").exists() else None,
                "curl": ["bash", HERE / "curl_client.sh", *arguments] if shutil.which("curl") else None,
            }
            for client, command in runs.items():
                print(f"== {client}, {name} ==", flush=True)
                if command is None:
                    print("skipped: it is not installed here", flush=True)
                    counts["skipped"] += 1
                    continue
                code = subprocess.run([str(word) for word in command], timeout=600).returncode
                counts["passed" if code == 0 else "failed"] += 1
        browser(node, folder, screenshots, counts, running)
    finally:
        codes = [server.end() for server in running]
        shutil.rmtree(folder)
    if any(codes):
        print(f"servers ended with {codes}, expected 0 of each")
        counts["failed"] += 1
    print(", ".join(f"{count} {name}" for name, count in counts.items()))
    return 1 if counts["failed"] else 0


def browser(node, folder, screenshots, counts, running):
    """The page, on a server without keys, and on the split."""
    script = HERE.parent / "web" / "web_test.mjs"
    print("== the page in Chromium ==", flush=True)
    if not node or not (shutil.which("chromium") or shutil.which("chromium-browser")):
        print("skipped: node or chromium is not installed here", flush=True)
        counts["skipped"] += 1
        return
    server = servers.Server("chiasm serve", "--features", "none", "--log-level", "off",
                            env={"XDG_CACHE_HOME": str(folder / "page-cache")})
    running.append(server)
    out = screenshots or folder / "screenshots"
    out.mkdir(parents=True, exist_ok=True)
    code = subprocess.run([node, str(script), "--url", server.url, "--shots", str(out)], timeout=600).returncode
    counts["passed" if code == 0 else "failed"] += 1


if __name__ == "__main__":
    sys.exit(main())
