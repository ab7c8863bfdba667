# shellcheck shell=bash
# Every program of the bed from Go modules. What was built from the same sources, flags and Go is found in the cache.

# digest FILE...: of names and contents
digest() { sha256sum "$@" | sha256sum | cut -c1-16; }

# program MODULE LDFLAGS OUTPUT PACKAGE [FLAG...]: one program, unless it is there
program() {
  local module=$1 ldflags=$2 output=$3 package=$4; shift 4
  local sources key folder begin
  begin=$(now)
  mapfile -t sources < <(cd "$BED/.." && find "$module" -type f \( -name '*.go' -o -name 'go.*' \) | LC_ALL=C sort)
  key=$(cd "$BED/.." && { digest "${sources[@]}"; go env GOVERSION; echo "$ldflags" "$output" "$package" "$@"; } | sha256sum | cut -c1-16)
  folder="$CACHE/programs/$output-$key"
  if [[ ! -x $folder/$output ]]; then
    say "$output: builds (the Go build cache keeps what is done; a broken-off build goes on where it was)"
    mkdir -p "$folder"
    # A line for each 100 packages shows that it goes on.
    (cd "$BED/../$module" && CGO_ENABLED=0 go build -v -trimpath -ldflags "$ldflags" -o "$folder/$output.part" "$@" "$package" 2>&1) |
      awk -v name="$output" '/^[^ ]+\/[^ ]+$/ || /^[a-z0-9]+$/ { if (++n % 100 == 0) print name ": " n " packages"; next } { print } ' >&2
    [[ -s $folder/$output.part ]] || fail "$output: cannot be built"
    mv "$folder/$output.part" "$folder/$output"
    say "$output: built in $(since "$begin") s"
  fi
  ln -sfn "$folder/$output" "$BIN/$output"
}

build_programs() {
  local version=k8s.io/component-base/version commit name
  commit=$(printf '0%.0s' {1..40})
  mkdir -p "$BIN"
  program cluster/programs/containerd "-s -w -X github.com/containerd/containerd/v2/version.Version=$CONTAINERD_VERSION" \
    containerd github.com/containerd/containerd/v2/cmd/containerd -tags 'no_btrfs no_devmapper no_zfs'
  program cluster/programs/containerd '-s -w' containerd-shim-runc-v2 github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2
  program cluster/programs/containerd '-s -w' ctr github.com/containerd/containerd/v2/cmd/ctr
  program cluster/programs/coredns '-s -w' coredns .
  program cluster/programs/mcs-controller '-s -w' mcs-controller .
  program cluster/programs/echo '-s -w' echo .
  program cluster/programs/helm '-s -w' helm helm.sh/helm/v4/cmd/helm
  program cluster/programs/kubernetes "-s -w -X $version.gitVersion=$KUBERNETES_VERSION -X $version.gitMajor=1 -X $version.gitMinor=37 \
-X $version.gitTreeState=clean -X $version.gitCommit=$commit -X k8s.io/client-go/pkg/version.gitVersion=$KUBERNETES_VERSION" kubernetes .
  for name in etcd kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl; do
    ln -sfn "$BIN/kubernetes" "$BIN/$name"
  done
}
