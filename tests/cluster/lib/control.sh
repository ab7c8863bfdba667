# shellcheck shell=bash
# etcd, API server, controller manager and scheduler of one cluster.

start_apiserver() {
  local cluster=$1 pki="$RUN/$1/pki"
  start "$cluster" kube-apiserver "$BIN/kube-apiserver" --v=1 \
    --etcd-servers=http://127.0.0.1:2379 --service-cluster-ip-range="$(service_range "$cluster"),$(service_range6 "$cluster")" \
    --secure-port=6443 --bind-address=0.0.0.0 --advertise-address="$(node_ip "$cluster")" \
    --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" --client-ca-file="$pki/ca.crt" \
    --service-account-key-file="$pki/service-accounts.pub" --service-account-signing-key-file="$pki/service-accounts.key" \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true \
    --kubelet-certificate-authority="$pki/ca.crt" --kubelet-client-certificate="$pki/apiserver-to-kubelet.crt" \
    --kubelet-client-key="$pki/apiserver-to-kubelet.key" --kubelet-preferred-address-types=InternalIP --profiling=false
}

apiserver_is_ready() { kubectl "$1" get --raw /readyz; }

control_up() {
  local cluster=$1 state="$RUN/$1" pki="$RUN/$1/pki"
  mkdir -p "$state/etcd"
  # The data lives as long as the bed: nothing is gained by waiting for the disk.
  start "$cluster" etcd "$BIN/etcd" --name "$cluster" --data-dir "$state/etcd" --log-level warn --unsafe-no-fsync \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
    --initial-cluster "$cluster=http://127.0.0.1:2380"
  start_apiserver "$cluster"
  until_true "API server of $cluster" 120 apiserver_is_ready "$cluster"
  start "$cluster" kube-controller-manager "$BIN/kube-controller-manager" --kubeconfig "$state/controller-manager.conf" \
    --use-service-account-credentials=true --service-account-private-key-file="$pki/service-accounts.key" --root-ca-file="$pki/ca.crt" \
    --cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key" \
    --leader-elect=false --allocate-node-cidrs=false --bind-address=127.0.0.1 --profiling=false
  start "$cluster" kube-scheduler "$BIN/kube-scheduler" --kubeconfig "$state/scheduler.conf" \
    --leader-elect=false --bind-address=127.0.0.1 --profiling=false
  until_true "default service account of $cluster" 60 kubectl "$cluster" -n default get serviceaccount default
}
