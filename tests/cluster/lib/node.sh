# shellcheck shell=bash
# containerd, kubelet and kube-proxy of one cluster's one node.

# With cgroup v1 the kubelet wants its root in every hierarchy before it starts.
cgroup_roots() {
  local hierarchy file
  for hierarchy in /sys/fs/cgroup/*/; do
    hierarchy=${hierarchy%/}
    [[ $(stat -f -c %T "$hierarchy") == cgroupfs ]] || continue
    mkdir -p "$hierarchy/isthmus-bed-$1"
    [[ -f $hierarchy/isthmus-bed-$1/cpuset.cpus ]] || continue
    for file in cpuset.cpus cpuset.mems; do cat "$hierarchy/$file" >"$hierarchy/isthmus-bed-$1/$file"; done
  done
}

runtime_up() {
  local cluster=$1 state="$RUN/$1" image
  mkdir -p "$state/cni" "$state/containerd"
  cgroup_roots "$cluster"
  cat >"$state/containerd.toml" <<TOML
version = 3
root = "$state/containerd/root"
state = "$state/containerd/state"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs"]
[grpc]
address = "$state/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "$state/containerd/opt"
[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "isthmus.local/pause:1"
[plugins."io.containerd.cri.v1.runtime"]
# A machine that is a container itself may not lower the score.
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/usr/lib/cni"]
conf_dir = "$state/cni"
[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "$(command -v runc)"
SystemdCgroup = false
TOML
  cat >"$state/cni/10-bed.conflist" <<JSON
{"cniVersion": "1.0.0", "name": "bed", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "$state/addresses",
     "ranges": [[{"subnet": "$(pod_range "$cluster")"}], [{"subnet": "$(pod_range6 "$cluster")"}]],
     "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
  start "$cluster" containerd env PATH="$BIN:$PATH" "$BIN/containerd" -c "$state/containerd.toml"
  until_true "containerd of $cluster" 30 "$BIN/ctr" -a "$state/containerd.sock" version
  for image in "$IMAGES"/*.tar; do load_image "$cluster" "$image"; done
}

load_image() { "$BIN/ctr" -a "$RUN/$1/containerd.sock" -n k8s.io image import --local "$2" >/dev/null 2>&1 || fail "$2: cannot be imported"; }

node_up() {
  local cluster=$1 state="$RUN/$1" pki="$RUN/$1/pki"
  mkdir -p "$state/kubelet" "$state/pods" "$state/manifests"
  echo 'nameserver 127.0.0.1' >"$state/resolv.conf"
  cat >"$state/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /isthmus-bed-$cluster
enforceNodeAllocatable: []
failSwapOn: false
containerRuntimeEndpoint: unix://$state/containerd.sock
imageServiceEndpoint: unix://$state/containerd.sock
staticPodPath: $state/manifests
podLogsDir: $state/pods
address: 0.0.0.0
tlsCertFile: $pki/kubelet-server.crt
tlsPrivateKeyFile: $pki/kubelet-server.key
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $pki/ca.crt}}
authorization: {mode: Webhook}
clusterDomain: cluster.local
clusterDNS: ["$(dns_vip "$cluster")"]
resolvConf: $state/resolv.conf
localStorageCapacityIsolation: false
evictionHard: {memory.available: "0%", nodefs.available: "0%", imagefs.available: "0%", nodefs.inodesFree: "0%"}
imageGCHighThresholdPercent: 100
syncFrequency: 10s
nodeStatusUpdateFrequency: 5s
registryPullQPS: 0
eventRecordQPS: 0
maxPods: 200
shutdownGracePeriod: 0s
YAML
  cat >"$state/kube-proxy.yaml" <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {kubeconfig: $state/kube-proxy.conf}
clusterCIDR: $(pod_range "$cluster"),$(pod_range6 "$cluster")
hostnameOverride: node-$cluster
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
conntrack: {maxPerCore: 0, min: 0}
YAML
  start "$cluster" kubelet "$BIN/kubelet" --config "$state/kubelet.yaml" --kubeconfig "$state/kubelet.conf" --root-dir "$state/kubelet" \
    --hostname-override "node-$cluster" --node-ip "$(node_ip "$cluster"),$(node_ip6 "$cluster")" --v=1
  start "$cluster" kube-proxy "$BIN/kube-proxy" --config "$state/kube-proxy.yaml"
  until_true "node of $cluster" 120 kubectl "$cluster" wait --for=condition=Ready "node/node-$cluster" --timeout=1s
  # What a cloud's controller would write.
  kubectl "$cluster" label node "node-$cluster" topology.kubernetes.io/region="$cluster" topology.kubernetes.io/zone="$cluster-1" >/dev/null
}
