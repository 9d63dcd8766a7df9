#!/usr/bin/env bash
# Runs fuzz targets for a fixed time on a copy of their committed corpus, so that a run never changes the tree.
#
# usage: fuzz/run.sh PROGRAM_FOLDER SECONDS JOBS [TARGET...]        (./dev fuzz builds the programs and calls this)
#
# An input that fails is kept in PROGRAM_FOLDER/failures/ and the line to run it again is printed.
set -euo pipefail
programs=$1 seconds=$2 jobs=$3
shift 3
corpus=$(dirname "${BASH_SOURCE[0]}")/corpus

if (($# == 0)); then
  for program in "$programs"/*_fuzz; do
    [[ -x $program ]] && set -- "$@" "$(basename "$program" _fuzz)"
  done
fi
(($#)) || { echo "fuzz: no program in $programs" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$programs/failures"

run_one() {
  local target=$1 log=$work/$1.log
  mkdir -p "$work/$target"
  [[ -x $programs/${target}_fuzz ]] || { echo "fuzz: no target $target" >&2; return 1; }
  [[ -d $corpus/$target ]] || { echo "fuzz: $target has no corpus in $corpus/$target" >&2; return 1; }
  cp -r "$corpus/$target/." "$work/$target/"
  if ASAN_OPTIONS=allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 "$programs/${target}_fuzz" \
    "$work/$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$programs/failures/$target-" >"$log" 2>&1; then
    awk -v target="$target" '
      / cov: /{for (i = 1; i < NF; i++) if ($i == "cov:") cov = $(i + 1)}
      /number_of_executed_units/{runs = $2} /average_exec_per_sec/{rate = $2}
      END{printf "%-16s passed: %9d inputs, %6d a second, %5d edges\n", target, runs, rate, cov}' "$log"
  else
    tail -n 60 "$log"
    printf '%-16s FAILED; again with: %s %s\n' "$target" "$programs/${target}_fuzz" \
      "$(grep -o "$programs/failures/[^ ]*" "$log" | tail -n 1)"
    return 1
  fi
}
export -f run_one
export programs seconds corpus work
echo "fuzz: $# targets, $seconds s each, $jobs at a time: $*"
printf '%s\n' "$@" | xargs -r -P "$jobs" -I{} bash -c 'run_one {}'
