#!/usr/bin/env bash
# Speed at the paper's scale on a GPU (random weights), and whether its engines give the codes of
# `eager` there (shipped checkpoint, float32): JSON, figures and logs into $OUT (default: out/), in at
# most nine minutes. A part that fails is named at the end, with status 1; the others run all the same.
#
# Needs torch with CUDA, transformers, tokenizers, safetensors, numpy, scipy, pyyaml, opencv and tqdm
# of the machine's own Python ($PYTHON), matplotlib for figures; nothing is installed. Where there is
# no git repository, FASTER_VLA_COMMIT names the commit.
#
# Recorded observations are not in the repository. EPISODES names a folder of them, e.g. brought along
# from `faster-vla demos collect`. Without it they are recorded here, which needs the simulator
# (pip install '.[sim]', and an EGL or OSMesa library; no display) - where that is missing, that part
# fails.
#
# Time, estimated; nothing of it has been run. Eager torch is bound by launches: 10 ms per pass of the
# expert, 30 ms for vision and prefill. Captured: 1.3 ms per pass, 8 ms for vision and prefill of a
# single arm and 11 of the whole body. 100 rounds, heads of more than 100 passes in 20 of them; what
# is captured as a whole runs once more by stages.
#   paper_single      start 25, preparing 20, cuda_graph 100 x (2 x (12 + 35 + 21) + 60) + 20 x 190 ms
#                     = 23, eager 100 x (60 + 240 + 130) ms = 43, static 6: 117 s of 140
#   paper_whole_body  start 25, preparing 30, cuda_graph 100 x 2 x (27 + 19 + 34 + 136 + 24) ms = 48
#                     and 20 x (237 + 885) ms = 22, eager 100 x (150 + 90 + 210 + 130) ms = 58:
#                     183 s of 205
#   agreement         start 15, 1,000 x 50 ms = 50: 65 s of 90
#   compile           start 25, Inductor about 40, 100 x 50 ms = 5: 70 s of 85
# 20 s before the end of its time a part begins no other round: `n_runs` then tells how many it was.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
out="${OUT:-out}"
python="${PYTHON:-python3}"
episodes="${EPISODES:-}"
failed=''
mkdir -p "$out" || exit
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1

limited() { # NAME SECONDS arguments of faster-vla...
    local name="$1" limit="$2"
    shift 2
    timeout --kill-after 5 "$limit" "$python" -m faster_vla_ros.cli "$@" > "$out/$name.log" 2>&1 && return
    failed="$failed, $name"
    echo "$name: failed, or took longer than $limit s; the end of $out/$name.log:" >&2
    tail -n 5 "$out/$name.log" >&2
}

bench() { # NAME SECONDS arguments of faster-vla bench...
    local name="$1" limit="$2"
    shift 2
    rm -f "$out/$name.json"
    limited "$name" "$limit" bench "$@" --device cuda --seconds $((limit - 20)) --out "$out/$name.json"
}

policy() { # NAME SECONDS arguments of faster-vla bench policy...
    local figure=()
    "$python" -c 'import matplotlib' 2> /dev/null && figure=(--figure "$out/$1.png")
    bench "$@" "${figure[@]}" --iterations 100
}

policy paper_single 140 policy --preset paper_single --engines cuda_graph,eager,static \
    --only eager=block,token,flow --only static=block
policy paper_whole_body 205 policy --preset paper_whole_body --engines cuda_graph,eager \
    --only eager=block,flow

left=90
if [ -z "$episodes" ]; then
    episodes="$out/episodes"
    began=$SECONDS
    printf 'episodes: {%s}\n' 'pick_red: 5, pick_blue: 5, pick_green_left: 5, pick_green_right: 5, raise_red: 4' \
        > "$out/episodes.yaml"
    limited episodes 30 demos collect "$out/episodes.yaml" --out "$episodes" --workers 8
    left=$((left - (SECONDS - began)))
fi
bench agreement "$left" agreement --engines cuda_graph,static --episodes "$episodes" --iterations 1000

policy compile 85 policy --preset paper_single --engines cuda_graph,compile --heads block

if [ -n "$failed" ]; then
    echo "failed: ${failed#, }" >&2
    exit 1
fi
