#!/usr/bin/env bash
# Set up and start Relaygate on a fresh Linux machine. Everything is kept in .venv beside this file.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
VENV="$ROOT/.venv"

usage() {
  cat <<'TEXT'
Usage: ./deploy.sh [OPTION]... [-- RELAYGATE-OPTION...]

Installs into .venv (again only when the locked dependencies have changed) and starts the relay and its admin app, in
the foreground. Without a relaygate.yaml in the working directory it serves the default prefixes on 127.0.0.1:8000, and
the admin API on 127.0.0.1:8001. The limit of open files is raised as far as the system allows.

  --production    one worker for each core that this process may use, and no access log. It listens where the settings
                  say, which is 127.0.0.1 unless changed, since the default prefixes serve whoever reaches them. Opening
                  it is a decision of yours: ./deploy.sh --production -- --host 0.0.0.0
                  Without --production and on loopback, a target may be a private address too (docs/options.md:
                  allow_private_targets), unless the environment, .env or the YAML file say something of it.
  --tune-system   apply sysctl/*.conf (as root) and print each value before and after. Alone, it starts nothing.
  --dry-run       with --tune-system: print what would change, and stop
  --test          install the development tools too and run the whole test suite; what follows -- goes to pytest
  --install       install and stop
  --dev           install the development tools too
  --help          print this

Everything after -- goes to `relaygate serve`, for example: ./deploy.sh -- --port 9000 --config my.yaml
PYTHON=/path/to/python3.12 chooses the interpreter; otherwise the newest of 3.14 to 3.11 is taken.
TEXT
}

main() {
  local production="" tune="" dry_run="" test="" install="" dev="" trial=""
  while (($#)); do
    case "$1" in
      --production) production=yes ;;
      --tune-system) tune=yes ;;
      --dry-run) dry_run=yes ;;
      --test) test=yes dev=yes ;;
      --install) install=yes ;;
      --dev) dev=yes ;;
      -h | --help) usage && exit ;;
      --) shift && break ;;
      *) fail "unknown option $1 (see ./deploy.sh --help)" 2 ;;
    esac
    shift
  done
  [[ -z $dry_run || -n $tune ]] || fail "--dry-run goes with --tune-system" 2

  if [[ -n $tune ]]; then
    tune_system "$dry_run" || [[ -n $production$test$install ]] || exit 1
    [[ -z $dry_run && -n $production$test$install ]] || exit 0
  fi
  install_venv "$dev"
  [[ -z $install ]] || exit 0
  [[ -z $test ]] || exec "$ROOT/scripts/test" "$@"
  if [[ -n $production ]]; then
    export RELAYGATE_ACCESS_LOG=false
    set -- --workers "$(nproc)" "$@"
  elif undecided "$@"; then
    trial=yes
  fi
  start "$trial" "$@"
}

say() { printf 'deploy: %s\n' "$1"; }

fail() { # message, exit status
  printf 'deploy: %s\n' "$1" >&2
  exit "${2:-1}"
}

# --- installation -----------------------------------------------------------------------------------------------------

install_venv() { # non-empty for the development tools too
  local lock="requirements${1:+-dev}.lock" stamp="$VENV/relaygate${1:+-dev}.stamp" wanted
  wanted="$ROOT $(cat "$ROOT/$lock" "$ROOT/pyproject.toml" | sha256sum)"
  usable_venv || make_venv
  if [[ "$(cat "$stamp" 2>/dev/null)" == "$wanted" ]]; then
    return
  fi
  say "installing $lock"
  rm -f "$VENV"/relaygate*.stamp
  export PIP_DISABLE_PIP_VERSION_CHECK=1
  pip --require-hashes --requirement "$ROOT/$lock"
  # All that the build needs is locked and installed by now. A .pth file (compat) costs 15 ms less at every start of a
  # process than setuptools' import hook.
  pip --no-index --no-build-isolation --no-deps --config-settings editable_mode=compat --editable "$ROOT"
  printf '%s\n' "$wanted" >"$stamp"
}

pip() { "$VENV/bin/python" -m pip --quiet install --no-input --progress-bar off "$@" || fail "the installation failed" 1; }

usable_venv() { "$VENV/bin/python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

make_venv() {
  local python
  python="$(find_python)"
  say "making .venv with $("$python" --version)"
  "$python" -m venv --clear "$VENV" || fail "$python could not make $VENV"
}

find_python() {
  local candidate found="" old=""
  for candidate in ${PYTHON:-python3.14 python3.13 python3.12 python3.11 python3}; do
    command -v "$candidate" >/dev/null || continue
    if ! "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      old="$candidate"
    elif ! "$candidate" -c 'import venv, ensurepip' 2>/dev/null; then
      found="$candidate"
    else
      command -v "$candidate"
      return
    fi
  done
  if [[ -n $found ]]; then
    fail "$found has no venv module. On Debian and Ubuntu: apt install $(basename "$found")-venv"
  fi
  [[ -z $old ]] || old=" ($old is $("$old" --version 2>&1 || true))"
  fail "no Python 3.11 or newer found$old. Install one, or name it: PYTHON=/path/to/python3.11 ./deploy.sh"
}

# --- start ------------------------------------------------------------------------------------------------------------

undecided() { # options; whether neither the environment nor a file says which targets are allowed
  [[ -z ${RELAYGATE_ALLOW_PRIVATE_TARGETS:-} ]] &&
    ! grep -Eiqs -d skip '^[^#]*(allow_private_targets|RELAYGATE_CONFIG=)' -- \
      .env "${RELAYGATE_CONFIG:-relaygate.yaml}" "${@#--config=}"
}

start() { # non-empty for a trial, in which a target may be on this machine too; then options of `relaygate serve`
  local report url prefix trial="$1"
  shift
  # Each connection that is relayed takes two descriptors; the usual soft limit of 1024 would end at 500 of them.
  ulimit -Sn "$(ulimit -Hn)" || true
  [[ -z $trial ]] || export RELAYGATE_ALLOW_PRIVATE_TARGETS=true
  # Refuses bad settings with one line and status 2, before anything starts.
  report="$("$VENV/bin/relaygate" check "$@")" || exit
  url="$(sed -n 's/^listen: \([^ ]*\).*/\1/p' <<<"$report")"
  if [[ -n $trial && $url =~ ^https?://(127\.|\[::1\]) ]]; then
    say "targets may be private addresses, so that one can try it here: RELAYGATE_ALLOW_PRIVATE_TARGETS=true"
  elif [[ -n $trial ]]; then
    unset RELAYGATE_ALLOW_PRIVATE_TARGETS
    "$VENV/bin/relaygate" check "$@" >/dev/null || exit
  fi
  prefix="$(awk '$1 == "/openai" { openai = 1 } END { print openai ? "/openai/v1/models" : "/healthz" }' <<<"$report")"
  say "starting on $url with $(tail -n 1 <<<"${report% ok}"); Ctrl-C stops it"
  say "try: curl -N $url$prefix"
  exec "$VENV/bin/relaygate" serve "$@"
}

# --- kernel settings --------------------------------------------------------------------------------------------------

tune_system() { # non-empty for a dry run
  local file key value before path words refused=""
  [[ -n $1 || $(id -u) == 0 ]] || fail "--tune-system writes kernel settings: run it as root, or add --dry-run"
  for file in "$ROOT"/sysctl/*.conf; do
    while read -r key _ value; do
      path="/proc/sys/${key//.//}"
      if [[ ! -e $path ]]; then
        say "$key: not in this kernel, skipped"
        continue
      fi
      read -r -a words <"$path"
      before="${words[*]}"
      if [[ $before == "$value" ]]; then
        say "$key: $value already"
      elif [[ -n $1 ]]; then
        say "$key: $before, would become $value"
      elif (printf '%s\n' "$value" >"$path") 2>/dev/null; then
        say "$key: $before, now $value"
      else
        say "$key: $before, and the kernel refuses $value"
        refused=yes
      fi
    done < <(grep -Ev '^[[:space:]]*(#|$)' "$file")
  done
  say "to keep this after a restart: cp sysctl/*.conf /etc/sysctl.d/"
  [[ -z $refused ]]
}

main "$@"
