# shellcheck shell=bash
# A CA, certificates and kubeconfigs of one cluster.

new_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key" 2>/dev/null; }

# sign NAME SUBJECT USAGE [ALTERNATIVE-NAMES]
sign() {
  new_key "$1"
  openssl req -new -key "$1.key" -subj "$2" |
    openssl x509 -req -CA ca.crt -CAkey ca.key -set_serial "0x$(openssl rand -hex 8)" -days 3650 -out "$1.crt" -extfile <(
      echo 'keyUsage=critical,digitalSignature'
      echo "extendedKeyUsage=$3"
      [[ -z ${4-} ]] || echo "subjectAltName=$4"
    ) 2>/dev/null
}

# kubeconfig CLUSTER NAME: for the certificate of that name
kubeconfig() {
  cat >"$RUN/$1/$2.conf" <<YAML
apiVersion: v1
kind: Config
clusters: [{name: $1, cluster: {server: "https://$(node_ip "$1"):6443", certificate-authority-data: $(base64 -w0 ca.crt)}}]
users: [{name: $2-$1, user: {client-certificate-data: $(base64 -w0 "$2.crt"), client-key-data: $(base64 -w0 "$2.key")}}]
contexts: [{name: $1, context: {cluster: $1, user: $2-$1}}]
current-context: $1
YAML
}

certificates() {
  local cluster=$1 ip dns name
  ip=$(node_ip "$cluster")
  mkdir -p "$RUN/$cluster/pki"
  cd "$RUN/$cluster/pki" || return
  new_key ca
  openssl req -x509 -new -key ca.key -subj "/CN=isthmus-bed-$cluster" -days 3650 -out ca.crt
  dns=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,DNS:localhost
  sign apiserver /CN=kube-apiserver serverAuth "$dns,IP:127.0.0.1,IP:$ip,IP:$(apiserver_vip "$cluster")"
  sign apiserver-to-kubelet /O=system:masters/CN=kube-apiserver-kubelet-client clientAuth
  sign kubelet-server "/O=system:nodes/CN=system:node:node-$cluster" serverAuth "DNS:node-$cluster,IP:$ip,IP:127.0.0.1"
  sign kubelet "/O=system:nodes/CN=system:node:node-$cluster" clientAuth
  sign admin /O=system:masters/CN=admin clientAuth
  for name in controller-manager scheduler; do sign "$name" "/CN=system:kube-$name" clientAuth; done
  sign kube-proxy /CN=system:kube-proxy clientAuth
  new_key service-accounts
  openssl ec -in service-accounts.key -pubout -out service-accounts.pub 2>/dev/null
  for name in admin kubelet controller-manager scheduler kube-proxy; do kubeconfig "$cluster" "$name"; done
}
