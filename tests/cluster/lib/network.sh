# shellcheck shell=bash
# A network namespace a cluster, joined by a bridge; pod networks are routed flat, as MCS providers without a tunnel have it.

network_up() {
  local cluster other inner
  ip link add "$BRIDGE" type bridge
  ip addr add "$HOST_IP/24" dev "$BRIDGE"
  ip addr add "$HOST_IP6/64" dev "$BRIDGE" nodad
  ip link set "$BRIDGE" up
  for cluster in "${CLUSTERS[@]}"; do
    inner=$(namespace "$cluster")
    ip netns add "$inner"
    ip link add "bed-$cluster" type veth peer name eth0 netns "$inner"
    ip link set "bed-$cluster" master "$BRIDGE" up
    ip -n "$inner" link set lo up
    ip -n "$inner" addr add "$(node_ip "$cluster")/24" dev eth0
    ip -n "$inner" addr add "$(node_ip6 "$cluster")/64" dev eth0 nodad
    ip -n "$inner" link set eth0 up
    ip -n "$inner" route add default via "$HOST_IP"
    ip -n "$inner" route add default via "$HOST_IP6"
    inside "$cluster" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
    # Where the module is there, bridged packets between two pods of a node must meet the Services' rules too.
    inside "$cluster" sysctl -eqw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1 2>/dev/null || true
    ip route add "$(pod_range "$cluster")" via "$(node_ip "$cluster")" dev "$BRIDGE"
    ip route add "$(pod_range6 "$cluster")" via "$(node_ip6 "$cluster")"
    for other in "${CLUSTERS[@]}"; do
      [[ $other != "$cluster" ]] || continue
      ip -n "$inner" route add "$(pod_range "$other")" via "$(node_ip "$other")"
      ip -n "$inner" route add "$(pod_range6 "$other")" via "$(node_ip6 "$other")"
    done
  done
}

network_down() {
  local cluster
  for cluster in "${CLUSTERS[@]}"; do
    ip link del "bed-$cluster" 2>/dev/null || true
    ip netns del "$(namespace "$cluster")" 2>/dev/null || true
  done
  ip link del "$BRIDGE" 2>/dev/null || true
}
