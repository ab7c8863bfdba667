# shellcheck shell=bash
# What both suites are run with. Sourced, never run.

readonly here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
readonly run="${ISTHMUS_BED_RUN:-/run/isthmus-bed}"
readonly reports="${REPORTS:-$here/reports}"
readonly injection="${NAMESPACE_LABELS-isthmus.dev/injection=enabled}"

fail() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# test_binary PACKAGE [COMPILED]: a compiled test binary, the given one or one of the sources as they are
test_binary() {
  local package=$1 compiled=${2-} cache="${XDG_CACHE_HOME:-$HOME/.cache}/isthmus-conformance"
  if [[ -z $compiled ]]; then
    mkdir -p "$cache"
    compiled="$cache/$package.test"
    (cd "$here" && go test -c -o "$compiled" "./$package") >&2
  fi
  [[ -x $compiled ]] || fail "no test binary at $compiled"
  printf '%s\n' "$compiled"
}

version() { sed -n 's/^version = "\(.*\)"$/\1/p' "$here/../../Cargo.toml" | head -n 1; }

# Who is reported on, in the terms of the Gateway API's conformance reports.
readonly implementation=(
  "--organization=${ORGANIZATION:-isthmus}"
  "--project=${PROJECT:-isthmus}"
  "--url=${PROJECT_URL:-https://isthmus.dev}"
  "--contact=${CONTACT:-https://isthmus.dev}"
  "--version=${VERSION:-v$(version)}"
)

join() { local IFS=,; printf '%s\n' "$*"; }
