#!/usr/bin/env bash
# Everything that is to be measured on a GPU, in one command, in about twenty minutes:
#   bash benchmarks/gpu.sh [FOLDER]        (default: benchmarks/results/gpu)
# PYTHON names the interpreter; EXTRA goes to every step benchmark. On a CPU it was tried with
#   EXTRA="--device cpu --size 32 --width 4 --blocks 1 --rounds 1" IMAGES=100 PHOTOS=2 FRAMES=4 SIDES="300 200" MEMORY=1GB
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-benchmarks/results/gpu}
python=${PYTHON:-python}
mkdir -p "$out"
export PYTHONPATH=src:benchmarks${PYTHONPATH:+:$PYTHONPATH}

step() { # step NAME FLAGS...: one table to the screen and to a file
  local name=$1
  shift
  echo "== $name: step.py $* ${EXTRA:-}"
  # shellcheck disable=SC2086
  "$python" benchmarks/step.py "$@" ${EXTRA:-} 2>&1 | tee "$out/$name.txt"
}

step paper-256 --size 256 --floor --profile
step paper-256-batch4 --size 256 --batch 4
step measures-256 --size 256 --measures
step fp32-256 --size 256 --precision fp32
for size in 64 128 384 512; do step "size-$size" --size "$size"; done
for width in 32 96; do step "width-$width" --size 256 --width "$width"; done
step checkpoint-512 --size 512 --checkpoint-activations
"$python" benchmarks/data.py --images "${IMAGES:-10000}" 2>&1 | tee "$out/data.txt"
"$python" benchmarks/translate.py photos --photos "${PHOTOS:-5000}" 2>&1 | tee "$out/translate.txt"
"$python" benchmarks/translate.py video --frames "${FRAMES:-60}" 2>&1 | tee "$out/video.txt"
"$python" benchmarks/translate.py tiles --sides ${SIDES:-6000 4000} --memory "${MEMORY:-3GB}" 2>&1 | tee "$out/tiles.txt"
echo "results: $out"
