"""A link leads to nobody whom only this node can reach (DESIGN 10, 12)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.reach import Reach, may_be_asked, reach_of

GLOBAL, LOOPBACK, PRIVATE, METADATA = "8.8.8.8", "127.0.0.1", "10.1.2.3", "169.254.169.254"


class ReachTests(SynchronousTestCase):
    def test_from_where_an_address_is_reached(self) -> None:
        for expected, hosts in (
            (Reach.GLOBAL, ("8.8.8.8", "2600::1", "::ffff:8.8.8.8")),
            (Reach.LOOPBACK, ("127.0.0.1", "127.9.9.9", "::1")),
            (Reach.PRIVATE, ("10.0.0.1", "172.31.255.255", "192.168.1.1", "fd00::1", "fec0::1")),
            (Reach.OTHER, ("169.254.169.254", "fe80::1%eth0", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "0.1.2.3")),
            (Reach.OTHER, ("255.255.255.255", "192.0.0.192", "100.100.100.200", "a.example", "", "64:ff9b:1::7f00:1")),
            (Reach.OTHER, ("168.63.129.16", "::ffff:168.63.129.16", "fd00:ec2::254", "fd20:ce::254")),
            (Reach.RESERVED, ("100.64.0.1", "192.0.2.1", "198.18.0.1", "203.0.113.80", "240.0.0.1", "2001:db8::1")),
        ):
            for host in hosts:
                self.assertIs(expected, reach_of(host), host)

    def test_an_ipv4_address_inside_an_ipv6_one_counts(self) -> None:
        for host in ("::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1", "::127.0.0.1", "::ffff:0:127.0.0.1"):
            self.assertIs(Reach.LOOPBACK, reach_of(host), host)


class LinkTests(SynchronousTestCase):
    def test_every_address_has_to_be_global(self) -> None:
        self.assertTrue(may_be_asked([GLOBAL, "2600::1"], [PRIVATE]))
        self.assertFalse(may_be_asked([GLOBAL, PRIVATE], [GLOBAL]))

    def test_or_of_a_class_that_the_origin_has(self) -> None:
        self.assertTrue(may_be_asked(["192.168.7.7", GLOBAL], [PRIVATE]))
        self.assertTrue(may_be_asked(["::1"], [LOOPBACK]))
        self.assertFalse(may_be_asked([LOOPBACK], [PRIVATE]))
        self.assertFalse(may_be_asked([PRIVATE], [LOOPBACK]))

    def test_a_gateway_gives_names_addresses_that_are_nobodys(self) -> None:
        self.assertTrue(may_be_asked(["198.18.0.7"], ["198.18.0.3"]))
        self.assertFalse(may_be_asked(["198.18.0.7"], [GLOBAL, PRIVATE]))

    def test_what_is_neither_is_never_asked(self) -> None:
        self.assertFalse(may_be_asked([METADATA], [METADATA]))

    def test_without_any_address_there_is_nobody_to_ask(self) -> None:
        self.assertFalse(may_be_asked([], [GLOBAL]))
