#!/bin/sh
# Two VXLAN devices in namespaces of their own, joined by adit: ping and TCP inside. Needs root, iproute2, ethtool, ping
# and python3.
#
#     ADIT=target/release/adit examples/udp/vxlan.sh [quic|tcp]
set -eu
adit=$(realpath "${ADIT:-target/release/adit}")
transport=${1:-quic}
folder=$(mktemp -d)
cloud=adit-cloud-$$ site=adit-site-$$
pids=

clean() {
    for pid in $pids; do kill "$pid" 2>/dev/null || true; done
    ip netns del "$cloud" 2>/dev/null || true
    ip netns del "$site" 2>/dev/null || true
    rm -r "$folder"
}
trap clean EXIT
trap "exit 1" INT TERM

# Each namespace has a wire to this one: 10.9.1.2 is the device of the cloud, 10.9.2.2 that of the site.
wire() {
    ip netns add "$1"
    ip link add "w$2-$$" type veth peer name wire netns "$1"
    ip addr add "10.9.$2.1/24" dev "w$2-$$"
    ip link set "w$2-$$" up
    ip -n "$1" addr add "10.9.$2.2/24" dev wire
    ip -n "$1" link set wire up
    ip -n "$1" link set lo up
    ip -n "$1" link add vx0 type vxlan id 7 dstport 4789 srcport 4789 4790 local "10.9.$2.2" remote "10.9.$2.1"
    ip -n "$1" addr add "10.77.0.$2/24" dev vx0
    ip -n "$1" link set vx0 mtu 1300 up
    # Wires of this kind leave checksums and segments to the other end, which is a program here.
    ip netns exec "$1" ethtool -K vx0 tx off tso off gso off >/dev/null
    ip netns exec "$1" ethtool -K wire tx off tso off gso off >/dev/null
}
wire "$cloud" 1
wire "$site" 2

cd "$folder"
"$adit" pki init pki >/dev/null
"$adit" pki responder pki --name 127.0.0.1 >/dev/null
"$adit" pki node pki --node edge-17 --cluster plant-3 >/dev/null
cat >cloud.yaml <<END
responder:
  listen: { quic: "127.0.0.1:17843", tcp: "127.0.0.1:17843" }
  tls: { cert: pki/responder.pem, key: pki/responder.key, client_ca: pki/ca.pem }
  identity: "spiffe://adit.internal/tenant/{tenant}/cluster/{cluster}/node/{node}"
  state_dir: state
egress:
  - { udp: "10.9.1.1:4789", to: { node: edge-17, service: vxlan } }
END
cat >edge.yaml <<END
initiator:
  node: edge-17
  cluster: plant-3
  tunnels: [ { to: "127.0.0.1:17843", transport: $transport } ]
  tls: { cert: pki/edge-17.pem, key: pki/edge-17.key, ca: pki/ca.pem }
services:
  - { name: vxlan, target: "udp://10.9.2.2:4789", from: "10.9.2.1:4789" }
END
"$adit" run cloud.yaml 2>cloud.log & pids="$pids $!"
"$adit" run edge.yaml 2>edge.log & pids="$pids $!"

# The first pings may be lost, while tunnel and flow come up.
ip netns exec "$cloud" ping -q -c 40 -i 0.2 -w 20 10.77.0.2 | tail -n 2
ip netns exec "$site" ping -q -c 10 -i 0.2 10.77.0.1 | tail -n 2

ip netns exec "$site" python3 -c '
import socket
server = socket.create_server(("10.77.0.2", 5000))
peer, _ = server.accept()
count = 0
while data := peer.recv(65536):
    count += len(data)
peer.sendall(str(count).encode())
' & pids="$pids $!"
sleep 1
ip netns exec "$cloud" python3 -c '
import socket, time
size = 20_000_000
begun = time.monotonic()
peer = socket.create_connection(("10.77.0.2", 5000))
peer.sendall(bytes(size))
peer.shutdown(socket.SHUT_WR)
counted = int(peer.recv(64))
seconds = time.monotonic() - begun
assert counted == size, counted
print(f"TCP inside: {size} bytes in {seconds:.2f} s, {size / seconds / 1e6:.1f} MB/s")
'
