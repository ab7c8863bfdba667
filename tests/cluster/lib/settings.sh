# shellcheck shell=bash disable=SC2034
# What every part of the bed agrees on: names, addresses, folders. Sourced, never run.

readonly BED="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
readonly PROJECT="$(cd "$BED/../.." && pwd)"
# Programs, images and CRDs: made once a machine, by content.
readonly CACHE="${ISTHMUS_BED_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/isthmus-bed}"
# State of a running bed. Short, since unix sockets lie in it.
readonly RUN="${ISTHMUS_BED_RUN:-/run/isthmus-bed}"
readonly BIN="$CACHE/bin"
readonly IMAGES="$CACHE/images"
readonly CRDS="$CACHE/crds"

readonly KUBERNETES_VERSION=v1.37.2
readonly CONTAINERD_VERSION=v2.4.2
readonly GATEWAY_API_VERSION=v1.6.3
readonly MCS_API_VERSION=v0.5.2

# The clusters; the bed's word for each is also its cluster id in the ClusterSet.
readonly CLUSTERS=(east west)
readonly BRIDGE=isthmus-bed
readonly HOST_IP=198.18.0.1
readonly HOST_IP6=fd00:198:18::1

number()           { case $1 in east) echo 1 ;; west) echo 2 ;; *) fail "no such cluster: $1 (there are: ${CLUSTERS[*]})" ;; esac; }
namespace()        { echo "isthmus-bed-$1"; }
node_ip()          { echo "198.18.0.1$(number "$1")"; }
node_ip6()         { echo "fd00:198:18::1$(number "$1")"; }
pod_range()        { echo "10.1$(number "$1").0.0/16"; }
pod_range6()       { echo "fd00:10:1$(number "$1")::/64"; }
service_range()    { echo "10.11$(number "$1").0.0/16"; }
service_range6()   { echo "fd00:10:11$(number "$1")::/112"; }
apiserver_vip()    { echo "10.11$(number "$1").0.1"; }
dns_vip()          { echo "10.11$(number "$1").0.10"; }

say()  { printf '%s\n' "$*" >&2; }
fail() { printf 'bed: %s\n' "$*" >&2; exit 1; }
now()  { date +%s%N; }
# since START: seconds with one decimal
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f", (b - a) / 1e9 }'; }

# inside CLUSTER COMMAND...: in the cluster's network. `ip netns exec` would mount another /sys and hide the cgroups.
inside() { local cluster=$1; shift; nsenter --net="/run/netns/$(namespace "$cluster")" "$@"; }
kubectl() { local cluster=$1; shift; "$BIN/kubectl" --kubeconfig "$RUN/$cluster/admin.conf" "$@"; }

# until_true WHAT SECONDS COMMAND...
until_true() {
  local what=$1 end=$((SECONDS + $2)); shift 2
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < end)) || fail "$what: not there in time; logs are in $RUN/*/log"
    sleep 0.1
  done
}

# Every process of a cluster's own programs is put into this cgroup, so that `down` finds them all, shims included.
pids_cgroup() { local root=/sys/fs/cgroup/pids; [[ -d $root ]] || root=/sys/fs/cgroup; echo "$root/isthmus-bed-$1-programs"; }

# start CLUSTER NAME COMMAND...: in the background, in the cluster's network, with a log
start() {
  local cluster=$1 name=$2 group; shift 2
  group=$(pids_cgroup "$cluster")
  mkdir -p "$group" "$RUN/$cluster/log" "$RUN/$cluster/pid"
  setsid nsenter --net="/run/netns/$(namespace "$cluster")" \
    bash -c 'echo $$ >"$0/cgroup.procs"; exec "$@"' "$group" "$@" >"$RUN/$cluster/log/$name.log" 2>&1 </dev/null &
  echo $! >"$RUN/$cluster/pid/$name"
}
