# shellcheck shell=bash
# Images of what the bed's pods run, and the CRDs; all of it from what is on this machine, by content.

readonly IMAGE_TOOL="$PROJECT/images/oci-image"

# libraries PROGRAM...: each shared library as a FILE=PATH pair
libraries() { ldd "$@" | grep -oE '/[^ ]+\.so[^ ]*' | LC_ALL=C sort -u | sed 's/.*/&=&/'; }

build_images() {
  local folder kubernetes applets=() applet curl
  mkdir -p "$IMAGES"
  if [[ ! -x $BIN/pause ]]; then
    folder="$BED/programs/kubernetes"
    kubernetes=$(cd "$folder" && go mod download "k8s.io/kubernetes@$KUBERNETES_VERSION" && go list -m -f '{{.Dir}}' k8s.io/kubernetes)
    gcc -Os -static -s -o "$BIN/pause" "$kubernetes/build/pause/linux/pause.c"
  fi
  "$IMAGE_TOOL" "$IMAGES/pause.tar" --name isthmus.local/pause:1 --entrypoint /pause "$BIN/pause=/pause"
  "$IMAGE_TOOL" "$IMAGES/coredns.tar" --name isthmus.local/coredns:1 --entrypoint /coredns "$BIN/coredns=/coredns"
  "$IMAGE_TOOL" "$IMAGES/mcs-controller.tar" --name isthmus.local/mcs-controller:1 --entrypoint /mcs-controller \
    "$BIN/mcs-controller=/mcs-controller"
  # The names under which the Gateway API's conformance suite asks for its echo server.
  "$IMAGE_TOOL" "$IMAGES/echo.tar" --name isthmus.local/echo:1 \
    --name registry.k8s.io/gateway-api/echo-advanced:v1.5.1 --name registry.k8s.io/gateway-api/conformance/echo-advanced:v0.1.0 \
    --entrypoint /usr/local/bin/server --user 1338 "$BIN/echo=/usr/local/bin/server" --link /usr/local/bin/client=server
  for applet in $(busybox --list); do [[ $applet == busybox ]] || applets+=(--link "/bin/$applet=busybox"); done
  curl=$(command -v curl)
  # shellcheck disable=SC2046
  "$IMAGE_TOOL" "$IMAGES/client.tar" --name isthmus.local/client:1 --name docker.io/curlimages/curl:8.11.1 --entrypoint /bin/sleep --entrypoint infinity --user 1337 \
    "$(command -v busybox)=/bin/busybox" "${applets[@]}" "$curl=/usr/bin/curl" $(libraries "$curl")
}

# The CRDs come from the modules that publish them.
fetch_crds() {
  local folder
  module_folder() { (cd "$PROJECT/tests/conformance" && go mod download -json "$1") | sed -n 's/^\t"Dir": "\(.*\)",\{0,1\}$/\1/p'; }
  mkdir -p "$CRDS"
  for folder in "$(module_folder "sigs.k8s.io/gateway-api@$GATEWAY_API_VERSION")/config/crd/experimental" \
    "$(module_folder "sigs.k8s.io/mcs-api@$MCS_API_VERSION")/config/crd"; do
    find "$folder" -name '*.yaml' ! -name kustomization.yaml -exec install -m 644 -t "$CRDS" {} +
  done
}
