#!/usr/bin/env python3
"""Checks that code depends downwards only: the #include lines, the link graph, and who may include a heavy library.

usage: check_layers.py SOURCE_ROOT [--links FILE]     check a tree; FILE as tests/layers/links.cmake writes it
       check_layers.py --self-test                    plant one violation of each kind and expect it to be found

Prints one line a violation and exits with 1 when there is any.
"""
import argparse
import pathlib
import re
import sys
import tempfile

# A folder may include itself and folders with a smaller number; folders with one number never include each other.
LAYERS = {
    "base": 0,
    "tensor": 1, "http": 1, "api": 1,
    "kernels": 2, "image": 2, "text": 2,
    "models": 3, "grammar": 3,
    "features": 4,
    "encoder": 5, "language": 5, "fleet": 5,
    "roles": 6,
    "app": 7,
}

# What the layers allow but a role must not have: the vision side has no text, the language side no pictures.
FORBIDDEN = {
    "encoder": ["text/", "grammar/", "models part language"],
    "language": ["image/", "models part vision"],
    "fleet": ["text/", "image/", "grammar/", "models part vision", "models part language"],
}

# Heavy libraries: (what the include names, which files may include it, as patterns of paths under src/).
CODE = r".*\.(cpp|h)"
# Tests and what only they use: x_test.cpp, test_x.h, test_x.cpp, golden.h, golden.cpp.
TEST = r"(?:.*/)?(?:\w+_test\.cpp|test_\w+\.(?:cpp|h)|golden\w*\.(?:cpp|h))"
LIBRARIES = [
    (r"(cuda_.*|cublasLt)\.h", r"kernels/.*_cuda(_test)?\.(h|cpp|cu)"),
    (r"jpeglib\.h|jerror\.h|turbojpeg\.h", r"image/decode_jpeg\w*\.cpp"),
    (r"spng\.h", r"image/decode_png\w*\.cpp"),
    (r"webp/.*", r"image/decode_webp\w*\.cpp"),
    (r"gif_lib\.h", r"image/decode_gif\w*\.cpp"),
    (r"simdjson\.h", r"base/json\w*\.cpp"),
    (r"nlohmann/.*", rf".*\.cpp|{TEST}"),
    (r"CLI/.*", rf"app/{CODE}"),
    (r"hwy/.*", rf"(kernels|image)/{CODE}"),
    (r"dnnl.*|oneapi/dnnl/.*", r"kernels/.*\.cpp"),
    (r"openssl/.*", rf"base/(digest|base64|secret)\w*\.cpp|http/{CODE}"),
    (r"xxhash\.h", r"base/digest\w*\.cpp"),
    (r"utf8proc\.h", r"text/.*\.cpp"),
    (r"pcre2\.h", r"text/.*_test\.cpp"),
    (r"fmt/(?!core\.h$).*", rf".*\.cpp|{TEST}"),
    (r"(gtest|gmock)/.*", TEST),
    (r"boost/.*", rf"http/{CODE}"),
    (r"prometheus/.*", r"base/metrics\w*\.cpp"),
    (r"spdlog/.*", r"base/log\w*\.cpp"),
    (r"immintrin\.h|arm_neon\.h|omp\.h", r"kernels/.*_cpu.*"),
    (r"iostream", rf"app/.*\.cpp|{TEST}"),
]

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)
PARTS = ("layout", "vision", "language")


def folder_of(path):
    return path.split("/", 1)[0]


def family_of(path):
    """The family of a file under models/<family>/, else None; models/registry/ holds one registry a part."""
    pieces = path.split("/")
    return pieces[1] if len(pieces) > 2 and pieces[0] == "models" and pieces[1] != "registry" else None


def part_of(path):
    """layout, vision or language for a file of models/ that belongs to one part, else None.

    In a family and in the registry the first word of the file's or sub-folder's name says it; in models/ itself, which is
    common, only the interfaces of the parts belong to one (vision_digest.h is about files, and both roles need it).
    """
    pieces = path.split("/")
    if pieces[0] != "models":
        return None
    if len(pieces) == 2:
        match = re.match(r"(layout|vision(?=_model)|language(?=_model))[_a-z]*\.", pieces[1])
        return match.group(1) if match else None
    for piece in pieces[2:]:
        word = re.match(r"[a-z0-9]+", piece)
        if word and word.group() in PARTS:
            return word.group()
    return None


def may_depend(source, target):
    """Why code at path `source` (under src/) must not depend on path `target`, or None."""
    here, there = folder_of(source), folder_of(target)
    if there not in LAYERS:
        return f"{there}/ is not a folder of the table of layers"
    if here != there:
        if LAYERS[there] > LAYERS[here]:
            return f"{here}/ (layer {LAYERS[here]}) must not depend on the higher {there}/ (layer {LAYERS[there]})"
        if LAYERS[there] == LAYERS[here]:
            return f"{here}/ and {there}/ are of one layer ({LAYERS[here]}) and must not depend on each other"
        for rule in FORBIDDEN.get(here, []):
            if rule == f"{there}/" or (rule.startswith("models part ") and rule.split()[-1] == part_of(target)):
                return f"{here}/ must not depend on {target}: it belongs to the other role"
        return None
    if here == "models" and not re.fullmatch(TEST, source):
        mine, theirs = part_of(source), part_of(target)
        if theirs not in (None, "layout", mine):
            return f"models part {mine or 'common to all'} must not depend on part {theirs}"
        if mine == "layout" and theirs not in (None, "layout"):
            return f"models part layout must not depend on part {theirs}"
    if here == "models":
        mine, theirs = family_of(source), family_of(target)
        if mine and theirs and mine != theirs:
            return f"family {mine} must not depend on family {theirs}: move what is shared to models/"
        if theirs and not mine and not source.startswith("models/registry/") and not re.fullmatch(TEST, source):
            return f"only models/registry/ may name a family ({theirs})"
    return None


def without_comments(text):
    return re.sub(r"/\*.*?\*/", lambda m: "\n" * m.group().count("\n"), text, flags=re.S)


def check_includes(root):
    src = root / "src"
    found = []
    if not src.is_dir():
        return [f"{src}: no such folder"], 0
    for entry in sorted(src.iterdir()):
        if entry.is_dir() and entry.name not in LAYERS:
            found.append(f"src/{entry.name}/: unknown folder; a new one needs a line in tests/layers/check_layers.py")
        elif entry.is_file() and entry.name != "CMakeLists.txt":
            found.append(f"src/{entry.name}: code belongs into one of the folders")
    files = sorted(p for p in src.rglob("*") if p.suffix in (".h", ".cpp", ".cu", ".inc") and p.parent != src)
    for file in files:
        path = file.relative_to(src).as_posix()
        if folder_of(path) not in LAYERS:
            continue
        text = without_comments(file.read_text(encoding="utf-8"))
        for match in INCLUDE.finditer(text):
            where = f"src/{path}:{text.count(chr(10), 0, match.start(2)) + 1}"
            quote, name = match.groups()
            if ".." in name.split("/"):
                found.append(f'{where}: "{name}": say the path from src/ instead of ".."')
                continue
            for library, allowed in LIBRARIES:
                if re.fullmatch(library, name) and not re.fullmatch(allowed, path):
                    found.append(f"{where}: {name} may be included by {allowed} only")
            if quote == '"' or folder_of(name) in LAYERS and "/" in name:
                if not (src / name).is_file():
                    found.append(f'{where}: "{name}": no such file under src/ (include paths start at src/)')
                elif reason := may_depend(path, name):
                    found.append(f"{where}: {reason}")
    return found, len(files)


def check_links(links):
    """FILE has lines 'TARGET|folder under src|sources, ;-separated|linked libraries, ;-separated'."""
    targets = {}
    for line in links.read_text().splitlines():
        name, folder, sources, libraries = line.split("|")
        # A target stands for a part of a model only when all of its sources do. A test program may join parts.
        paths = [f"{folder}/{pathlib.PurePath(source).name}" for source in sources.split(";")]
        same = len({part_of(path) for path in paths}) == 1
        test = all(re.fullmatch(TEST, path) for path in paths)
        path = paths[0] if same or test else f"{folder}/common.cpp"
        targets[name] = (path, [x for x in re.split(r"[;:<>$]+", libraries) if x])
    found = []
    for name, (path, libraries) in sorted(targets.items()):
        if folder_of(path) not in LAYERS:
            found.append(f"target {name}: {folder_of(path)}/ is not a folder of the table of layers")
            continue
        for library in dict.fromkeys(libraries):
            if library in targets and library != name and (reason := may_depend(path, targets[library][0])):
                found.append(f"target {name} links {library}: {reason}")
    return found, len(targets)


def self_test():
    planted = {  # path under src/ -> (text, what the report must say; None: nothing)
        "base/good.h": ("#pragma once\n#include <vector>\n", None),
        "tensor/good.h": ('#include "base/good.h"\n', None),
        "base/up.cpp": ('\n#include "tensor/good.h"\n', "src/base/up.cpp:2: base/ (layer 0) must not depend on the higher"),
        "http/good.h": ("", None),
        "tensor/side.cpp": ('#include "http/good.h"\n', "tensor/ and http/ are of one layer"),
        "tensor/dots.cpp": ('#include "../base/good.h"\n', 'instead of ".."'),
        "tensor/angle.cpp": ("#include <kernels/ops.h>\n", "tensor/ (layer 1) must not depend on the higher kernels/"),
        "tensor/bare.cpp": ('#include "good.h"\n', "no such file under src/"),
        "tensor/quiet.cpp": ('/* #include "app/x.h"\n*/\n// #include "app/x.h"\n', None),
        "kernels/ops.h": ("", None),
        "image/decode_jpeg.cpp": ("#include <jpeglib.h>\n", None),
        "image/other.cpp": ("#include <jpeglib.h>\n", "jpeglib.h may be included by"),
        "base/json.h": ("#include <simdjson.h>\n", "simdjson.h may be included by"),
        "base/heavy.h": ("#include <nlohmann/json.hpp>\n", "nlohmann/json.hpp may be included by"),
        "base/heavy.cpp": ("#include <nlohmann/json.hpp>\n#include <fmt/format.h>\n", None),
        "base/slow.h": ("#include <fmt/format.h>\n", "fmt/format.h may be included by"),
        "base/core.h": ("#include <fmt/core.h>\n", None),
        "text/tokenizer.h": ("", None),
        "image/image.h": ("", None),
        "models/layout.h": ("", None),
        "models/config.h": ('#include "models/vision_model.h"\n', "models part common to all must not depend on part vision"),
        "models/split.cpp": ('#include "models/vision_digest.h"\n', None),
        "models/vision_digest.h": ("", None),
        "models/vision_model.h": ('#include "models/layout.h"\n', None),
        "models/language_model.h": ("", None),
        "models/registry/vision.cpp": ('#include "models/one/vision.h"\n', None),
        "models/registry/language.cpp": ('#include "models/one/vision.h"\n', "part language must not depend on part vision"),
        "models/one/layout.cpp": ('#include "models/one/vision.h"\n', "part layout must not depend on part vision"),
        "models/one/vision.h": ('#include "models/vision_model.h"\n#include "models/one/layout.h"\n', None),
        "models/one/layout.h": ("", None),
        "models/one/language.cpp": ('#include "models/one/vision.h"\n', "part language must not depend on part vision"),
        "models/one/vision_test.cpp": ('#include "models/language_model.h"\n#include <gtest/gtest.h>\n', None),
        "models/two/layout.cpp": ('#include "models/one/layout.h"\n', "family two must not depend on family one"),
        "models/checkpoint.cpp": ('#include "models/one/layout.h"\n', "only models/registry/ may name a family"),
        "encoder/a.cpp": ('#include "text/tokenizer.h"\n', "encoder/ must not depend on text/tokenizer.h"),
        "encoder/b.cpp": ('#include "models/language_model.h"\n', "encoder/ must not depend on models/language_model.h"),
        "encoder/c.cpp": ('#include "models/vision_model.h"\n#include "image/image.h"\n', None),
        "language/a.cpp": ('#include "image/image.h"\n', "language/ must not depend on image/image.h"),
        "language/b.cpp": ('#include "models/language_model.h"\n#include "text/tokenizer.h"\n', None),
        "junk/a.cpp": ("", "src/junk/: unknown folder"),
    }
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for path, (text, _) in planted.items():
            file = root / "src" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        found, _ = check_includes(root)
        for path, (_, expected) in planted.items():
            mine = [line for line in found if line.startswith((f"src/{path}:", f"src/{folder_of(path)}/:"))]
            if expected is None and mine and folder_of(path) != "junk":
                wrong.append(f"{path}: nothing is wrong with it, reported: {mine}")
            if expected is not None and not (len(mine) == 1 and expected in mine[0]):
                wrong.append(f"{path}: expected '{expected}', reported: {mine}")
        links = root / "links"
        links.write_text("chiasm_base|base|a.cpp|fmt::fmt;chiasm_tensor\n"
                         "chiasm_tensor|tensor|a.cpp|$<LINK_ONLY:chiasm_base>;chiasm_base\n"
                         "chiasm_one_vision|models/one|vision.cpp;vision_block.cpp|chiasm_one_language;chiasm_tensor\n"
                         "chiasm_one_language|models/one|language.cpp|chiasm_tensor\n"
                         "chiasm_models|models|language_x.cpp;config.cpp|chiasm_tensor\n"
                         "one_test|models/one|vision_test.cpp;language_test.cpp|chiasm_models;chiasm_one_language;chiasm_one_vision\n"
                         "chiasm_language|language|a.cpp|$<LINK_ONLY:chiasm_one_vision>\n")
        found, _ = check_links(links)
        named = [line.split(":")[0] for line in found]
        expected = ["target chiasm_base links chiasm_tensor", "target chiasm_language links chiasm_one_vision",
                    "target chiasm_one_vision links chiasm_one_language"]
        if named != expected:
            wrong.append(f"links: expected {expected}, reported {found}")
    for line in wrong:
        print(f"self-test: {line}")
    if not wrong:
        print(f"self-test: every one of {sum(e is not None for _, e in planted.values()) + 3} planted violations was found")
    return 1 if wrong else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", nargs="?", type=pathlib.Path)
    parser.add_argument("--links", type=pathlib.Path)
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()
    if arguments.self_test:
        return self_test()
    if arguments.root is None:
        parser.error("name the source root")
    found, files = check_includes(arguments.root)
    targets = 0
    if arguments.links:
        more, targets = check_links(arguments.links)
        found += more
    for line in found:
        print(line)
    print(f"{files} files and {targets} targets checked, {len(found)} violations")
    return 1 if found or not files else 0


if __name__ == "__main__":
    sys.exit(main())
