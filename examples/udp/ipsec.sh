#!/bin/sh
# Two strongSwan in namespaces of their own, joined by adit: IKEv2 with a shared secret, and ESP in UDP, all on port 4500;
# ping and TCP inside. Needs root, iproute2, nsenter, ping, python3, /dev/net/tun, and of Debian strongswan-charon,
# strongswan-swanctl and libcharon-extra-plugins: ESP is of their plugin kernel-libipsec, so the kernel needs none.
#
#     ADIT=target/release/adit examples/udp/ipsec.sh [quic|tcp]
set -eu
. "$(dirname "$0")/namespaces.sh"
charon=/usr/lib/ipsec/charon
[ -x "$charon" ] || { echo "there is no $charon: apt-get install strongswan-charon" >&2 && exit 1; }
secret=0x$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')

# peer NAME N ROLE OTHER-N OTHER-ROLE: strongSwan at the end of wire N, with 10.77.0.N inside. It finds /run and its
# configuration where it always does, but they are of this folder.
peer() {
    mkdir -p "$3/run" "$3/swanctl"
    # Where swanctl looks for keys and certificates; there are none.
    (cd "$3/swanctl" && mkdir x509 x509ca x509ocsp x509aa x509ac x509crl pubkey private rsa ecdsa bliss pkcs8 pkcs12)
    cat >"$3/strongswan.conf" <<END
charon {
  load = random nonce aes sha1 sha2 hmac kdf gmp vici kernel-libipsec kernel-netlink socket-default
  filelog {
    all {
      path = /run/charon.log
      default = 1
    }
  }
}
swanctl {
  load = nonce
}
END
    cat >"$3/swanctl/swanctl.conf" <<END
connections {
  adit {
    version = 2
    local_addrs = 10.9.$2.2
    remote_addrs = 10.9.$2.1
    # Never port 500, and ESP in UDP even where nobody translates addresses.
    local_port = 4500
    remote_port = 4500
    encap = yes
    mobike = no
    proposals = aes256-sha256-modp2048
    local {
      auth = psk
      id = $3
    }
    remote {
      auth = psk
      id = $5
    }
    children {
      inside {
        local_ts = 10.77.0.$2/32
        remote_ts = 10.77.0.$4/32
        esp_proposals = aes256-sha256
      }
    }
  }
}
secrets {
  ike {
    secret = $secret
  }
}
END
    ip -n "$1" addr add "10.77.0.$2/32" dev lo
    ip netns exec "$1" sh -c '
        mount --bind "$1/run" /run
        mount --bind "$1/strongswan.conf" /etc/strongswan.conf
        mount --bind "$1/swanctl" /etc/swanctl
        exec "$2"
    ' sh "$folder/$3" "$charon" >"$3.start.log" 2>&1 & pids="$pids $!"
    echo $! >"$3/pid"
    ln -s "$3/run/charon.log" "$3.charon.log"
    tries=100
    until answers "$3"; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "strongSwan of the $3 does not answer" >&2 && exit 1; }
        sleep 0.2
    done
    swanctl_of "$3" --load-creds --noprompt >/dev/null
    swanctl_of "$3" --load-conns >/dev/null
    # As much as fits, with ESP around it, a packet of a tunnel over QUIC.
    ip -n "$1" link set ipsec0 mtu 1300
}

# answers ROLE: whether it has begun, with a /run of its own, and takes orders.
answers() {
    [ -S "$1/run/charon.vici" ] && swanctl_of "$1" --stats >/dev/null
}

# swanctl_of ROLE ARGUMENTS: swanctl where that strongSwan is.
swanctl_of() {
    role=$1
    shift
    nsenter -t "$(cat "$role/pid")" -m swanctl "$@" 2>>"$role.swanctl.log"
}

wire "$cloud" 1
wire "$site" 2
join 4500
peer "$site" 2 site 1 cloud
peer "$cloud" 1 cloud 2 site

# IKE asks again where its first datagram is lost, while tunnel and flow come up.
swanctl_of cloud --initiate --child inside --timeout 30 | grep established
ip netns exec "$cloud" ping -q -c 20 -i 0.2 10.77.0.2 >ping.log
tail -n 2 ping.log
ip netns exec "$site" ping -q -c 10 -i 0.2 10.77.0.1 >ping.log
tail -n 2 ping.log
transfer
swanctl_of site --list-sas
