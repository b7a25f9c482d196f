"""Which addresses a link in a page may lead to (DESIGN 10, 12): the index shall not reach what only we can reach."""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterable

_IP = ipaddress.IPv4Address | ipaddress.IPv6Address

_PRIVATE = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10")))
# In a translator's own prefix an IPv4 address may be anywhere (RFC 8215). Some clouds' secrets are not link-local: of
# the last four, one looks global and two private.
_NOBODY = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8",
            "255.255.255.255/32",
            "64:ff9b:1::/48",
            "192.0.0.0/24",
            "100.100.100.200/32",
            "168.63.129.16/32",
            "fd00:ec2::/32",
            "fd20:ce::/32",
        ),
    )
)
# IPv4 addresses in the last 32 bits: translated (RFC 6052, RFC 7915), or compatible (RFC 4291 §2.5.5.1).
_IPV4_LAST = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "::ffff:0:0:0/96", "::/96")))


class Reach(enum.Enum):
    """From where an address can be reached."""

    GLOBAL = "global"
    LOOPBACK = "loopback"
    PRIVATE = "private"
    """RFC 1918, and unique or site local (RFC 4193, RFC 3879)."""
    RESERVED = "reserved"
    """Neither global nor private: shared (RFC 6598), for benchmarks (RFC 2544) and examples (RFC 5737). Gateways give
    such addresses to names whose traffic has to go through them."""
    OTHER = "other"
    """Link-local and others where clouds keep their secrets; multicast; unspecified."""


def reach_of(host: str) -> Reach:
    """
    :param host: a numeric address.

    >>> reach_of("192.0.2.1"), reach_of("::ffff:127.0.0.1"), reach_of("169.254.169.254")
    (<Reach.RESERVED: 'reserved'>, <Reach.LOOPBACK: 'loopback'>, <Reach.OTHER: 'other'>)
    """
    try:
        address = _inner(ipaddress.ip_address(host))
    except ValueError:
        return Reach.OTHER
    if address.is_loopback:
        return Reach.LOOPBACK
    nobody = address.is_unspecified or any(address in network for network in _NOBODY)
    if nobody or address.is_multicast or address.is_link_local:
        return Reach.OTHER
    if any(address.version == network.version and address in network for network in _PRIVATE):
        return Reach.PRIVATE
    return Reach.GLOBAL if address.is_global else Reach.RESERVED


def may_be_asked(hosts: Iterable[str], origin: Iterable[str]) -> bool:
    """
    :param hosts: all addresses of the host of a link.
    :param origin: those of the origins of the site whose page has the link.
    :return: is every one of them global, or loopback, private or reserved like one of the origin's? Without any: no.
    """
    own = {reach_of(host) for host in origin}
    found = [reach_of(host) for host in hosts]
    return bool(found) and all(one is Reach.GLOBAL or (one is not Reach.OTHER and one in own) for one in found)


def _inner(address: _IP) -> _IP:
    """:return: the IPv4 address that an IPv6 one leads to, if it says so."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if any(address in network for network in _IPV4_LAST) and int(address) > 1:
        return ipaddress.IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour or address
