#!/bin/sh
# What a GPU does, in one result file: the training step in bfloat16 and float32, the CIFAR-10 recipe
# trained and exported, and whether what the GPU trained fires the same spikes on this CPU.
#
#   benchmarks/gpu.sh /data [gpu-result.txt]     /data: the folder that holds CIFAR-10, binary version
#   TOY=1 benchmarks/gpu.sh . toy.txt            a rehearsal on the CPU with digits, a minute or two
#
# No network is asked. PYTHON names the interpreter, whose torch needs CUDA. Exit status: 0 when
# every part ended well; the file says how each did.
set -u
data=${1:?expected the folder that holds CIFAR-10}
result=${2:-gpu-result.txt}
python=${PYTHON:-python3}
here=$(dirname "$0")

if [ "${TOY:-0}" = 1 ]; then
    device=cpu
    table="--net small --steps 1 4 --batch 4 --rounds 2 --threads 1"
    recipe="digits.toml"
    settings="--set train.limit=200 --set train.epochs=1"
    samples="--samples 50"
else
    device=cuda
    table="--net resnet18 --steps 1 2 4 8 --batch 128 --rounds 20"
    recipe="cifar10.toml"
    settings=""
    samples=""
    "$python" -c "import sys, torch; sys.exit(not torch.cuda.is_available())" ||
        { echo "torch of $python sees no GPU; TOY=1 rehearses on the CPU" >&2; exit 3; }
fi

work=$(mktemp -d) || exit 3
trap 'rm -rf "$work"' EXIT
run=$work/run
worst=0

part() { # a heading, then the command whose output goes below it
    heading=$1
    shift
    printf '\n== %s\n   %s\n' "$heading" "$*"
    "$@"
    status=$?
    printf '   exit status %s\n' "$status"
    [ "$status" -le "$worst" ] || worst=$status
    return "$status"
}

machine() {
    "$python" - <<'EOF'
import platform, torch
from snnpipe import __version__

print(f"snnpipe {__version__}, torch {torch.__version__}, Python {platform.python_version()}")
if torch.cuda.is_available():
    gpu = torch.cuda.get_device_properties(0)
    print(f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}")
else:
    print("no GPU: a rehearsal on the CPU; its figures mean nothing")
EOF
}

everything() {
    snnpipe="$python -m snnpipe"
    part "machine" machine
    for precision in bf16 float32; do
        part "training step, $precision" \
            "$python" "$here/train_step.py" --device $device --precision $precision $table
    done
    part "training" $snnpipe train "$here/../recipes/$recipe" --data "$data" --out "$run" \
        --set train.device=$device $settings &&
        part "export" $snnpipe export "$run" --target nir,onnx &&
        part "trained there, deployed on this CPU" \
            $snnpipe verify "$run" --on torch,onnx,event --data "$data" $samples
    return "$worst"
}

everything >"$work/result" 2>&1
worst=$?
# Beside the result first: it appears whole or not at all.
cp "$work/result" "$result.part" && mv "$result.part" "$result" || exit 3
cat "$result"
exit "$worst"
