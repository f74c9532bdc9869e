# What vxlan.sh and ipsec.sh share, for `.`: a namespace of the cloud and one of the site, adit between the two, and a TCP
# transfer inside. The script goes on in a folder of its own; folder, namespaces and programs end with it.
adit=$(realpath "${ADIT:-target/release/adit}")
transport=${1:-quic}
case $transport in
quic | tcp) ;;
*) echo "the transport is \"quic\" or \"tcp\", not \"$transport\"" >&2 && exit 2 ;;
esac
folder=$(mktemp -d)
cloud=adit-cloud-$$ site=adit-site-$$
pids=

clean() {
    code=$?
    for pid in $pids; do kill "$pid" 2>/dev/null || true; done
    wait
    ip netns del "$cloud" 2>/dev/null || true
    ip netns del "$site" 2>/dev/null || true
    [ "$code" = 0 ] || tail -n 20 "$folder"/*.log >&2 || true
    rm -r "$folder"
    exit "$code"
}
trap clean EXIT
trap "exit 1" INT TERM
cd "$folder"

# wire NAME N: a namespace with a wire to this one, 10.9.N.2 at its end and 10.9.N.1 here.
wire() {
    ip netns add "$1"
    ip link add "w$2-$$" type veth peer name wire netns "$1"
    ip addr add "10.9.$2.1/24" dev "w$2-$$"
    ip link set "w$2-$$" up
    ip -n "$1" addr add "10.9.$2.2/24" dev wire
    ip -n "$1" link set wire up
    ip -n "$1" link set lo up
}

# join PORT [FIELDS]: both roles of adit, from 10.9.1.1 in front of the cloud to 10.9.2.2 at the site. FIELDS are further ones
# of the service.
join() {
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
  - { udp: "10.9.1.1:$1", to: { node: edge-17, service: peer } }
END
    cat >edge.yaml <<END
initiator:
  node: edge-17
  cluster: plant-3
  tunnels: [ { to: "127.0.0.1:17843", transport: $transport } ]
  tls: { cert: pki/edge-17.pem, key: pki/edge-17.key, ca: pki/ca.pem }
services:
  - { name: peer, target: "udp://10.9.2.2:$1"${2:+, $2} }
END
    "$adit" run cloud.yaml 2>cloud.log & pids="$pids $!"
    "$adit" run edge.yaml 2>edge.log & pids="$pids $!"
}

# 20 MB from 10.77.0.1 in the cloud to 10.77.0.2 at the site, which answers with the hash of what came.
transfer() {
    ip netns exec "$site" python3 -c '
import hashlib, socket
server = socket.create_server(("10.77.0.2", 5000))
peer, _ = server.accept()
came = hashlib.sha256()
while data := peer.recv(65536):
    came.update(data)
peer.sendall(came.digest())
' 2>transfer.log & pids="$pids $!"
    ip netns exec "$cloud" python3 -c '
import hashlib, os, socket, time
data = os.urandom(20_000_000)
deadline = time.monotonic() + 20
while True:
    try:
        peer = socket.create_connection(("10.77.0.2", 5000), timeout=20)
        break
    except ConnectionRefusedError:
        # The other one is not there yet.
        if time.monotonic() > deadline:
            raise
        time.sleep(0.05)
begun = time.monotonic()
peer.sendall(data)
peer.shutdown(socket.SHUT_WR)
answer = peer.makefile("rb").read()
seconds = time.monotonic() - begun
digest = hashlib.sha256(data)
assert answer == digest.digest(), f"what came has another hash: {answer.hex()}"
print(f"TCP inside: {len(data)} bytes in {seconds:.2f} s, {len(data) / seconds / 1e6:.1f} MB/s,", end=" ")
print(f"SHA-256 {digest.hexdigest()[:16]}... at both ends")
'
}
