#!/usr/bin/env bash
# Makes sure of what pip cannot bring: a C++ compiler, Python's headers, a headless OpenGL.
# Installs Debian packages when root; otherwise says which to install. Idempotent.
# usage: system_packages.sh PYTHON
set -euo pipefail
python=${1:?usage: system_packages.sh PYTHON}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
    echo "$("$python" --version 2>&1) is too old: Python 3.10 or newer is needed (make PYTHON=...)" >&2
    exit 1
}

# A package is asked for when its probe fails; the probe works without dpkg too.
has_library() { "$python" -c 'import ctypes, sys; ctypes.CDLL(sys.argv[1])' "$1" 2>/dev/null; }
has_driver() { compgen -G "/usr/lib*/*/dri/*_dri.so" >/dev/null || compgen -G "/usr/lib*/dri/*_dri.so" >/dev/null \
    || compgen -G "/usr/lib*/*/libgallium*.so" >/dev/null; }
has_headers() { "$python" -c '
import pathlib, sys, sysconfig
sys.exit(not (pathlib.Path(sysconfig.get_path("include")) / "Python.h").is_file())'; }

missing=()
command -v g++ >/dev/null || missing+=(g++)
command -v cmake >/dev/null || missing+=(cmake)
command -v ffmpeg >/dev/null || missing+=(ffmpeg)
has_library libEGL.so.1 || missing+=(libegl1)
has_library libGLESv2.so.2 || missing+=(libgles2)
has_driver || missing+=(libgl1-mesa-dri)
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
has_headers || missing+=(python3-dev)

# OSMesa is the second renderer; Debian 13 no longer has it, and EGL alone is enough.
optional=()
has_library libOSMesa.so.8 || has_library libOSMesa.so.6 || optional+=(libosmesa6)

if [ ${#missing[@]} -eq 0 ] && [ ${#optional[@]} -eq 0 ]; then
    exit 0
fi
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    for package in "${optional[@]}"; do
        if apt-cache show "$package" >/dev/null 2>&1; then missing+=("$package"); fi
    done
    if [ ${#missing[@]} -gt 0 ]; then
        echo "installing system packages: ${missing[*]}"
        apt-get install -y -qq --no-install-recommends "${missing[@]}"
    fi
elif [ ${#missing[@]} -gt 0 ]; then
    echo "missing system packages: ${missing[*]}" >&2
    echo "install them first, e.g.: sudo apt-get install ${missing[*]}" >&2
    echo "(other systems: a C++17 compiler, CMake, ffmpeg, EGL and GLES from Mesa, Python headers)" >&2
    exit 1
fi
