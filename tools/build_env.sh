#!/usr/bin/env bash
# Build the virtual environment that the Makefile uses.
#
#   tools/build_env.sh [--forks] DIR [PYTHON]
#
# Installs the versions of constraints.txt, and this package in editable mode, into DIR; with --forks the OneDL forks of
# constraints-onedl.txt in place of OpenMMLab's packages. Without an NVIDIA GPU the CPU build of torch is taken where
# pip's configured indexes offer one (TORCH_INDEX_URL adds an index), else the default build. DIR/.complete is written
# last, so an interrupted build is started again, and pip's caches make it quick.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
constraints=("$root/constraints.txt")
mmcv=mmcv
others=(mmengine mmdet mmpretrain openmim)
if [ "${1:-}" = --forks ]; then
    shift
    constraints+=("$root/constraints-onedl.txt")
    mmcv=onedl-mmcv
    others=(onedl-mmengine onedl-mmdetection onedl-mmpretrain onedl-mim)
fi
venv=${1:?usage: tools/build_env.sh [--forks] DIR [PYTHON]}
python=${2:-python3.11}
if [ -f "$venv/.complete" ] && cat "${constraints[@]}" | cmp -s "$venv/.complete" -; then
    exit 0
fi

say() { echo "[env $(date +%H:%M:%S)] $*"; }
fail() { echo "[env] error: $*" >&2; exit 1; }

command -v "$python" >/dev/null || fail "$python is not installed; name another Python 3.11 with BASE_PYTHON=..."
[ "$("$python" -c 'import sys; print(sys.version_info[:2] == (3, 11))')" = True ] ||
    fail "$python is $("$python" --version); the pinned versions need Python 3.11 (BASE_PYTHON=...)"
command -v c++ >/dev/null || fail "no C++ compiler (c++) found; mmcv's operators have to be compiled (Debian: apt install g++)"

say "building $venv: about 8 minutes on two cores, 6 of them for compiling mmcv; seconds where pip has mmcv cached"
rm -rf "$venv"
"$python" -m venv "$venv"
# Twice quiet: errors only. Once leaves a warning for each package of each local index that is configured but absent.
pip=("$venv/bin/python" -m pip install --quiet --quiet --disable-pip-version-check --constraint "${constraints[-1]}")
if [ -n "${TORCH_INDEX_URL:-}" ]; then
    pip+=(--extra-index-url "$TORCH_INDEX_URL")
fi
torch=$(sed -n 's/^torch==//p' "${constraints[0]}")

say "1/5 torch $torch"
"${pip[@]}" setuptools wheel ninja psutil numpy
if nvidia-smi -L >/dev/null 2>&1; then
    "${pip[@]}" torch torchvision
elif ! "${pip[@]}" "torch==$torch+cpu" 2>/dev/null; then
    say "no CPU build of torch $torch is offered by pip's indexes (TORCH_INDEX_URL=... adds one):" \
        "taking the default build, several GB"
    "${pip[@]}" torch torchvision
fi

say "2/5 $mmcv with its operators (this is the long one)"
# nproc says what OMP_NUM_THREADS says, and that is about the tests.
MMCV_WITH_OPS=1 MAX_JOBS=${MAX_JOBS:-$(env -u OMP_NUM_THREADS nproc)} "${pip[@]}" --no-build-isolation "$mmcv"

say "3/5 ${others[*]}"
"${pip[@]}" "${others[@]}" pycocotools matplotlib
if ! "$venv/bin/python" -c 'import torchvision' >/dev/null 2>&1; then
    # The torchvision that matches this torch is a CUDA build and dies beside a CPU torch ("operator torchvision::nms
    # does not exist"); this older one is used for its Python parts only, which mmpretrain imports.
    "${pip[@]}" --no-deps torchvision==0.16.2
fi

say "4/5 lint and test tools, ONNX, search"
"${pip[@]}" ruff mypy pytest pytest-timeout hypothesis seaborn onnx onnxruntime onnxscript \
    optuna plotly scikit-learn

say "5/5 this package, editable"
"${pip[@]}" --no-deps --no-build-isolation --editable "$root"

cat "${constraints[@]}" > "$venv/.complete"
say "done: $venv"
