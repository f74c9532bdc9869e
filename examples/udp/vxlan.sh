#!/bin/sh
# Two VXLAN devices in namespaces of their own, joined by adit: ping and TCP inside. Needs root, iproute2, ethtool, ping
# and python3.
#
#     ADIT=target/release/adit examples/udp/vxlan.sh [quic|tcp]
set -eu
. "$(dirname "$0")/namespaces.sh"

# device NAME N: 10.77.0.N is inside, from the end of wire N.
device() {
    ip -n "$1" link add vx0 type vxlan id 7 dstport 4789 srcport 4789 4790 local "10.9.$2.2" remote "10.9.$2.1"
    ip -n "$1" addr add "10.77.0.$2/24" dev vx0
    ip -n "$1" link set vx0 mtu 1300 up
    # Wires of this kind leave checksums and segments to the other end, which is a program here.
    ip netns exec "$1" ethtool -K vx0 tx off tso off gso off >/dev/null
    ip netns exec "$1" ethtool -K wire tx off tso off gso off >/dev/null
}
wire "$cloud" 1
wire "$site" 2
device "$cloud" 1
device "$site" 2
join 4789 'from: "10.9.2.1:4789"'

# The first pings may be lost, while tunnel and flow come up.
ip netns exec "$cloud" ping -q -c 40 -i 0.2 -w 20 10.77.0.2 | tail -n 2
ip netns exec "$site" ping -q -c 10 -i 0.2 10.77.0.1 | tail -n 2
transfer
