#!/usr/bin/env python3
"""Checks that a program holds no code of the named static libraries and loads none of the named shared ones.

usage: check_linkage.py PROGRAM --without LIBRARY.a... --without-shared NAME... [--expect-all]

Code is recognised by its strong symbols (nm): those a static library defines and the program defines as well. Inline
functions and templates are weak and do not count. Shared libraries are the NEEDED entries of
the program, which the linker writes for every library on its line. --expect-all is the self-test: everything named must be
there, and its absence is the failure.
"""
import argparse
import pathlib
import subprocess
import sys


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def strong_symbols(file):
    """Names of functions and data that `file` defines for others (nm types T, D, B, R; V, W and u are weak)."""
    symbols = set()
    for line in run("nm", "--extern-only", "--defined-only", str(file)).splitlines():
        fields = line.split()
        if len(fields) == 3 and fields[1] in "TDBRG":
            symbols.add(fields[2])
    return symbols


def needed(program):
    return [line.split("[")[1].rstrip("]") for line in run("readelf", "-dW", str(program)).splitlines() if "(NEEDED)" in line]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("--without", nargs="+", default=[], type=pathlib.Path)
    parser.add_argument("--without-shared", nargs="+", default=[])
    parser.add_argument("--expect-all", action="store_true")
    arguments = parser.parse_args()

    program = strong_symbols(arguments.program)
    loaded = needed(arguments.program)
    there, absent = [], []
    for library in arguments.without:
        own = strong_symbols(library)
        if not own:
            print(f"{library.name} defines no symbol: nothing could be found of it")
            return 1
        common = own & program
        line = f"{arguments.program.name}: {len(common)} of {len(own)} symbols of {library.name}"
        if common:
            names = run("c++filt", *sorted(common)[:5]).splitlines()
            there.append(f"{line}, among them {'; '.join(names)}")
        else:
            absent.append(line)
    for name in arguments.without_shared:
        matches = [file for file in loaded if file.startswith(name)]
        (there if matches else absent).append(f"{arguments.program.name}: loads {name}: {', '.join(matches) or 'no'}")

    print(f"{arguments.program.name} defines {len(program)} symbols and loads {', '.join(loaded)}")
    for line in there + absent:
        print(("expected: " if (line in there) == arguments.expect_all else "WRONG: ") + line)
    return 1 if (absent if arguments.expect_all else there) else 0


if __name__ == "__main__":
    sys.exit(main())
