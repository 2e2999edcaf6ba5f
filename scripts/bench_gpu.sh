#!/usr/bin/env bash
# Latency at the paper's scale on a GPU, random weights, into $OUT (default: out/): under nine minutes.
# Needs torch with CUDA, transformers, tokenizers, safetensors, numpy, scipy, pyyaml, opencv, tqdm and
# (for the figures) matplotlib of the machine's own Python (PYTHON); nothing is installed.
set -euo pipefail
cd "$(dirname "$0")/.."
out="${OUT:-out}"
python="${PYTHON:-python3}"
mkdir -p "$out"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1

bench() { # NAME SECONDS arguments...
  name="$1" limit="$2"
  shift 2
  timeout "$limit" "$python" -c 'import sys; from faster_vla_ros.cli import main; sys.exit(main())' \
    bench policy --device cuda --json --figure "$out/$name.png" "$@" | tail -n 1 > "$out/$name.json" \
    || echo "$name: failed or took longer than $limit s" >&2
}

# Captured graphs with every head, then plain torch beside them.
bench paper_single 160 --preset paper_single --engines cuda_graph,eager --heads block,token,fast,flow --iterations 100
bench paper_whole_body 220 --preset paper_whole_body --engines cuda_graph --iterations 100
bench paper_whole_body_eager 120 --preset paper_whole_body --engines cuda_graph,eager --heads block,flow --iterations 100
"$python" -c 'import sys, torch, transformers; print(sys.version, torch.__version__, transformers.__version__)' > "$out/versions.txt"
