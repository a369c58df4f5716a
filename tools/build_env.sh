#!/usr/bin/env bash
# Build the virtual environment that the Makefile uses.
#
#   tools/build_env.sh [--forks] DIR [PYTHON]
#
# Installs the versions of constraints.txt, and this package in editable mode, into DIR; with --forks the OneDL forks of
# constraints-onedl.txt in place of OpenMMLab's packages. PYTHON is a Python 3.10 to 3.13; the default is python3 where
# it is one of these, else the newest of them on the PATH. Without an NVIDIA GPU the CPU build of torch is taken where
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
python=${2:-}

say() { echo "[env $(date +%H:%M:%S)] $*"; }
fail() { echo "[env] error: $*" >&2; exit 1; }
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }
is_supported() { [[ $(version_of "$1") =~ ^3\.1[0-3]$ ]]; }

if [ -f "$venv/.complete" ] && cat "${constraints[@]}" | cmp -s "$venv/.complete" - &&
    { [ -z "$python" ] || [ "$(version_of "$python")" = "$(version_of "$venv/bin/python")" ]; }; then
    exit 0
fi

if [ -z "$python" ]; then
    for python in python3 python3.13 python3.12 python3.11 python3.10 ''; do
        if [ -n "$python" ] && is_supported "$python"; then break; fi
    done
    [ -n "$python" ] || fail "no Python 3.10 to 3.13 is on the PATH (python3 is $(python3 --version 2>&1 || true));" \
        "install one, or name it with BASE_PYTHON=..."
fi
command -v "$python" >/dev/null || fail "BASE_PYTHON must be a Python 3.10 to 3.13, got $python, which is not there"
is_supported "$python" ||
    fail "BASE_PYTHON must be a Python 3.10 to 3.13, got $python, which is $("$python" --version 2>&1 || true)"
command -v c++ >/dev/null ||
    fail "no C++ compiler (c++) found; mmcv's operators have to be compiled (Debian: apt install g++)"
[ -f "$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] ||
    fail "$python has no Python.h; mmcv's operators have to be compiled (Debian: apt install python3-dev)"

say "building $venv with $("$python" --version): 7 minutes on two cores with empty caches (29 November 2026)," \
    "5 of them for compiling mmcv, which is skipped where pip has it cached"
rm -rf "$venv"
"$python" -m venv "$venv"
export PATH="$venv/bin:$PATH"  # torch looks for ninja here; without it the compile runs on one core
# Twice quiet: errors only. Once leaves a warning for each package of each local index that is configured but absent.
pip=("$venv/bin/python" -m pip --disable-pip-version-check)
install=("${pip[@]}" install --quiet --quiet --constraint "${constraints[-1]}")
if [ -n "${TORCH_INDEX_URL:-}" ]; then
    install+=(--extra-index-url "$TORCH_INDEX_URL")
fi
torch=$(sed -n 's/^torch==//p' "${constraints[0]}")

say "1/5 torch $torch"
"${install[@]}" setuptools wheel ninja psutil numpy
if nvidia-smi -L >/dev/null 2>&1; then
    "${install[@]}" torch torchvision
elif ! "${install[@]}" "torch==$torch+cpu" 2>/dev/null; then
    say "no CPU build of torch $torch is offered by pip's indexes (TORCH_INDEX_URL=... adds one):" \
        "taking the default build, several GB"
    "${install[@]}" torch torchvision
fi

# Compile torch's headers once for all files of mmcv, which each include them; that is most of a file's time. GCC
# ignores the result where a file is compiled with other flags; other compilers may not, so they do without. The
# operators come out the same either way.
precompile_torch_headers() {  # FOLDER
    c++ --version | grep -q 'Free Software Foundation' || return 1
    echo '#include <torch/types.h>' > "$1/torch_types.h"
    local flags
    flags=$("$venv/bin/python" - <<'PYTHON'
import shlex
import sysconfig

import setuptools  # noqa: F401 (brings distutils)
from distutils.ccompiler import new_compiler
from distutils.sysconfig import customize_compiler
from torch.utils.cpp_extension import include_paths

compiler = new_compiler()
customize_compiler(compiler)
includes = [f'-I{path}' for path in (*include_paths(), sysconfig.get_path('include'))]
macros = ['-DTORCH_API_INCLUDE_EXTENSION_H', '-DTORCH_EXTENSION_NAME=_ext']
print(shlex.join([*compiler.compiler_so[1:], *includes, '-std=c++17', *macros]))
PYTHON
    ) || return 1
    eval "c++ -w -x c++-header $flags" '"$1/torch_types.h" -o "$1/torch_types.h.gch"'
}

say "2/5 $mmcv with its operators (this is the long one)"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# Debug symbols cost half as much again. CFLAGS would not do: it takes the place of Python's own flags, with their -O3.
export CPPFLAGS="${CPPFLAGS:-} -g0"
# mmcv 2.1.0 reads its version by an exec that sets a function's locals. On Python 3.13 exec no longer does (PEP 667);
# let it while mmcv is built.
if [ "$(version_of "$python")" = 3.13 ]; then
    cat > "$scratch/sitecustomize.py" <<'PYTHON'
import builtins
import sys

own_exec = builtins.exec


def exec_in_caller(code, globals=None, locals=None, /, **options):
    frame = sys._getframe(1)
    if globals is None:
        globals, locals = frame.f_globals, frame.f_locals
    return own_exec(code, globals, locals, **options)


builtins.exec = exec_in_caller
PYTHON
fi
build_mmcv() {  # [OPTION...] of pip
    # nproc says what OMP_NUM_THREADS says, and that is about the tests.
    PYTHONPATH=$scratch MMCV_WITH_OPS=1 MAX_JOBS=${MAX_JOBS:-$(env -u OMP_NUM_THREADS nproc)} \
        CPPFLAGS="$CPPFLAGS${header:+ -include $header}" "${install[@]}" --no-build-isolation "$@" "$mmcv"
}
mmcv_works() {
    "$venv/bin/python" -W ignore -c 'import torch, mmcv.ops as ops
assert not torch.cuda.is_available() or ops.get_compiling_cuda_version() != "not available"' >/dev/null 2>&1
}
tag=cp$("$python" -c 'import sys; print("%d%d" % sys.version_info[:2])')
header=
if ! "${pip[@]}" cache list "${mmcv//-/_}" 2>/dev/null | grep -q -e "-$tag-"; then
    precompile_torch_headers "$scratch" && header=$scratch/torch_types.h
    build_mmcv
elif ! { build_mmcv && mmcv_works; }; then
    say "the $mmcv that pip has cached was compiled for another torch: compiling it again"
    "${pip[@]}" cache remove --quiet "${mmcv//-/_}-*-$tag-*"
    precompile_torch_headers "$scratch" && header=$scratch/torch_types.h
    build_mmcv --force-reinstall --no-deps
fi

say "3/5 ${others[*]}"
"${install[@]}" "${others[@]}" pycocotools matplotlib
# The torchvision that matches this torch is a CUDA build on the default index, and dies beside a CPU torch ("operator
# torchvision::nms does not exist"). Where no CPU build is offered, an older one is used for its Python parts only,
# which mmpretrain imports; there is none for Python 3.12 and 3.13.
for version in 0.28.0+cpu 0.16.2; do
    if "$venv/bin/python" -c 'import torchvision' >/dev/null 2>&1; then break; fi
    "${install[@]}" --no-deps "torchvision==$version" 2>/dev/null || true
done
"$venv/bin/python" -W ignore -c 'import torchvision' >/dev/null 2>&1 ||
    fail "pip's indexes offer no CPU build of torchvision 0.28.0 beside that of torch (TORCH_INDEX_URL=... adds one)"

say "4/5 lint, test and docs tools, ONNX, search"
"${install[@]}" ruff mypy build pytest pytest-timeout pytest-xdist filelock hypothesis seaborn \
    onnx onnxruntime onnxscript optuna plotly 'psycopg[binary]' scikit-learn \
    sphinx myst-parser myst-nb furo nbclient nbformat ipykernel

say "5/5 this package, editable"
"${install[@]}" --no-deps --no-build-isolation --editable "$root"

cat "${constraints[@]}" > "$venv/.complete"
say "done: $venv"
