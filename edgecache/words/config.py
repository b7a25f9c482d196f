"""
The configuration as a frozen tree; every default says why. Units are in the names.

Reading a file is :mod:`edgecache.words.reading`'s business.
"""

from __future__ import annotations

import enum

from attrs import field, frozen
from attrs.validators import and_, ge, gt, le, lt

from edgecache.words.siblingsettings import SiblingSettings, SiblingsSettings

GIB = 1 << 30
MIB = 1 << 20

SIMPLE = "/simple/"
"""Where clients find the pages of an index."""


class Profile(enum.Enum):
    """What kind of origin a site is."""

    INDEX = "index"
    """A Python package index: read-only, page lifetimes are ours."""
    PLAIN = "plain"
    """Any HTTP origin: a shared cache as RFC 9111 has it."""


class Policy(enum.Enum):
    """In which order the origins of a site are tried."""

    ROUND_ROBIN = "round-robin"
    ORDERED = "ordered"
    FALLBACK = "fallback"


class FillAt(enum.Enum):
    """Where a miss is filled."""

    HOME = "home"
    """At the key's home among the siblings, which asks the origin: the fleet fetches it once."""
    ORIGIN = "origin"
    """By every node for itself, from the origin."""


class Access(enum.Enum):
    """Who may read a site."""

    OPEN = "open"
    """Whoever reaches the listener."""
    TOKEN = "token"
    """The site's clients."""


class FastlySoft(enum.Enum):
    """What a soft purge of the Fastly API's shape means here."""

    REVALIDATE = "revalidate"
    SOFT = "soft"


@frozen
class Secret:
    """A value that is never shown: neither in a repr, nor in a log, nor in ``/status``."""

    value: str = field(repr=False)


@frozen
class NodeSettings:
    """``[node]``"""

    id: str
    region: str = ""
    data: str = "edgecache-data"
    # One worker per CPU is what nginx's "auto" does; 0 means everything in one process.
    workers: int = field(default=1, validator=and_(ge(0), le(256)))
    # A second node on the same data directory waits this long for the last worker of the first.
    lease_seconds: float = field(default=10.0, validator=gt(0))


@frozen
class ListenSettings:
    """``[listen]``: addresses as ``host:port``, ``[v6]:port``."""

    public: tuple[str, ...] = ("127.0.0.1:8080",)
    admin: tuple[str, ...] = ("127.0.0.1:8081",)
    # Both with TLS and client certificates, and only with [siblings]. Control calls are the node process's ...
    siblings: tuple[str, ...] = ()
    # ... and look-ups of content the workers'.
    content: tuple[str, ...] = ()


@frozen
class TLSSettings:
    """``[tls]``: of the public listener."""

    certificate: str
    key: str


@frozen
class StoreSettings:
    """``[store]``"""

    size: int = field(default=20 * GIB, validator=ge(64 * MIB))
    # Records and small objects; blobs get the rest. LMDB files never shrink, so this is fixed.
    small_share: float = field(default=0.25, validator=and_(gt(0), lt(1)))
    # FIELD 7: above this share of the map the free list gets too fragmented.
    evict_share: float = field(default=0.85, validator=and_(gt(0), lt(1)))
    # Nothing new is stored above this until eviction has caught up.
    full_share: float = field(default=0.90, validator=and_(gt(0), lt(1)))
    # Each worker's: memory that the system cannot take away, so half of what a worker may have at most (DESIGN 13).
    hot_octets: int = field(default=32 * MIB, validator=ge(0))


@frozen
class ClientSettings:
    """
    ``[[site.client]]``: somebody who may read a site whose ``access`` is "token".

    Secrets are digests (:func:`edgecache.words.checking.checked`): the node needs to know one only when it sees it.
    """

    # In the access log and in /status.
    name: str
    # Sent as a bearer token, as the password of any user, or as a user without a password.
    token: Secret | None = None
    # Or a user and a password.
    user: str = ""
    password: Secret | None = None


@frozen
class SiteSettings:
    """``[[site]]``"""

    name: str
    profile: Profile
    # A URL may carry credentials.
    origins: tuple[str, ...] = field(repr=False)
    hosts: tuple[str, ...] = ("*",)
    # Several sites can share hosts: each is below a path of its own there, and knows nothing of that path.
    path: str = ""
    # Where clients reach this node, when it has to be in links: they are relative otherwise, which works everywhere.
    public_url: str = ""
    # "user:password" or "Bearer ...", sent to the origins and to nobody else.
    origin_authorization: Secret | None = None
    # Who may read.
    access: Access = Access.OPEN
    clients: tuple[ClientSettings, ...] = ()
    # Of an index: the path at which it takes uploads. They go to the origin with the client's own credentials.
    upload: str = ""
    # The largest one; large wheels have hundreds of MiB.
    upload_octets: int = field(default=GIB, validator=ge(1))
    policy: Policy = Policy.ROUND_ROBIN
    # Off: the origin sees its own name. On: it sees the client's, which is then in the key.
    preserve_host: bool = False
    # Purges are pushed here, so that pages may live for a day between them.
    purged: bool = False
    # An index page without purges: validated (collapsed) after this. Short, and one request per page at most.
    page_seconds: float = field(default=10.0, validator=ge(0))
    purged_page_seconds: float = field(default=86400.0, validator=ge(0))
    # Of an index that pushes no purges: its list of projects is looked at this often, and what has a new serial there
    # is invalidated. 0: it is not. While that works, pages live as where purges are pushed.
    follow_seconds: float = field(default=0.0, validator=ge(0))
    # The list, of 30 MB and more, has to come within this; later, pages live for page_seconds until it does.
    follow_fetch_seconds: float = field(default=30.0, validator=gt(0))
    follow_octets: int = field(default=256 * MIB, validator=ge(1))
    # Of an index: where below the origin the pages are. Clients always find them below /simple/.
    simple_path: str = SIMPLE
    # A page or file that is not there (404, 410).
    negative_seconds: float = field(default=10.0, validator=ge(0))
    # max-age=0 of a request is answered from the store if the page was validated this recently.
    recently_validated_seconds: float = field(default=2.0, validator=ge(0))
    # What clients are told about pages: always ask us again.
    client_max_age_seconds: int = field(default=0, validator=ge(0))
    # The same about files that a page names by digest, which never change: what large indexes say of theirs.
    client_file_max_age_seconds: int = field(default=365_000_000, validator=ge(0))
    # Hosts, as "name" or "name:port", that files are fetched from because pages link there, whatever their addresses
    # are. Others are asked only if they are global, or loopback or private as the origin is (rules/reach.py).
    file_hosts: tuple[str, ...] = ()
    # A path that every address of the origins is asked for now and then, whoever asks for what: "" for none.
    probe_path: str = ""
    # With policy "fallback": what another than the first origin answered is fresh for so long at most.
    fallback_seconds: float = field(default=5.0, validator=ge(0))
    # Where misses of files (plain: of everything) are filled. Files are large and never change.
    fill: FillAt = FillAt.HOME
    # The same for index pages: small, and one hop fewer between the origin's newest page and the client.
    page_fill: FillAt = FillAt.ORIGIN
    # RFC 9875: does an origin's Cache-Group-Invalidation reach the siblings? Whoever may POST could keep them busy.
    share_invalidation: bool = False
    # Of a plain site: fields of GET and HEAD that go upstream, besides those that HTTP itself gives a meaning
    # to on the way. None named: all that are end-to-end. An origin may make its answer of a field without saying so.
    request_fields: tuple[str, ...] = ()
    # Does Authorization of a client go upstream? Such requests are not cached on an index.
    pass_authorization: bool = False


@frozen
class UpstreamSettings:
    """``[upstream]``: deadlines, the breaker, hedging, and caps. FIELD 1 says where the numbers come from."""

    connect_seconds: float = field(default=2.0, validator=gt(0))
    # RFC 8305: the next address is tried in parallel after this.
    next_address_seconds: float = field(default=0.25, validator=gt(0))
    tls_seconds: float = field(default=2.0, validator=gt(0))
    head_seconds: float = field(default=5.0, validator=gt(0))
    # Between two reads of content, not for the whole of it: artifacts are large.
    stall_seconds: float = field(default=3.0, validator=gt(0))
    # To the client's first octet, all attempts together. pip gives up after 15 s.
    first_byte_seconds: float = field(default=12.0, validator=gt(0))
    resolve_seconds: float = field(default=30.0, validator=gt(0))
    # A pooled connection is used this long when the peer announces nothing.
    idle_seconds: float = field(default=4.0, validator=gt(0))
    idle_connections: int = field(default=32, validator=ge(0))
    # One origin that hangs must not take all of a worker's descriptors.
    awaited_heads: int = field(default=128, validator=ge(1))
    head_octets: int = field(default=64 << 10, validator=ge(1024))
    interim_responses: int = field(default=16, validator=ge(0))
    # Content slower than this over slow_window_seconds is fetched elsewhere while another address is healthy.
    slow_octets_per_second: float = field(default=1024.0, validator=ge(0))
    slow_window_seconds: float = field(default=10.0, validator=gt(0))
    # The breaker. One hang or stall trips it; of other failures so many in a row ...
    trip_failures: int = field(default=3, validator=ge(1))
    # ... or this share of at least trip_requests within trip_window_seconds.
    trip_share: float = field(default=0.5, validator=and_(gt(0), le(1)))
    trip_requests: int = field(default=10, validator=ge(1))
    trip_window_seconds: float = field(default=10.0, validator=gt(0))
    # Doubled with each ejection in a row, up to the longest.
    eject_seconds: float = field(default=10.0, validator=gt(0))
    eject_longest_seconds: float = field(default=300.0, validator=gt(0))
    # An address that answers again gets its share of requests back over this long.
    slow_start_seconds: float = field(default=30.0, validator=ge(0))
    # A head alone proves nothing: so much content, or all of it, restores an address.
    restore_octets: int = field(default=64 << 10, validator=ge(1))
    # Another address is asked as well when the head takes longer than the 95th percentile of this long ...
    hedge_window_seconds: float = field(default=300.0, validator=gt(0))
    # ... but never earlier than this, and for at most this share of the fills.
    hedge_least_seconds: float = field(default=0.05, validator=gt(0))
    hedge_share: float = field(default=0.05, validator=and_(ge(0), le(1)))
    # One move to another address is free for every fill. Hedges and further attempts: at most this share of the
    # running fills, but so many at any time.
    attempt_share: float = field(default=0.2, validator=and_(ge(0), le(1)))
    attempt_least: int = field(default=3, validator=ge(0))
    # Of the content of one response; each address is asked for a rest once.
    resumes: int = field(default=4, validator=ge(0))
    # Where a site has a probe_path: every address is asked for it this often.
    probe_seconds: float = field(default=10.0, validator=gt(0))
    # Extra trusted CAs (PEM) for TLS upstreams; the system's are always trusted.
    ca: str | None = None
    # What we show to upstreams that ask for a certificate (PEM); the key may be in the same file.
    client_certificate: str | None = None
    client_key: str | None = None
    # Of TLS 1.2, as OpenSSL writes them. None: with forward secrecy and authenticated encryption only (RFC 9325 §4.2),
    # which an appliance before an origin may be too old for.
    ciphers: str | None = None
    # http://host:port of a proxy that connects us (CONNECT); credentials may be in it.
    proxy: Secret | None = None


@frozen
class LimitSettings:
    """``[limits]``: of the public listener (DESIGN 12)."""

    tls_handshake_seconds: float = field(default=10.0, validator=gt(0))
    head_seconds: float = field(default=10.0, validator=gt(0))
    idle_seconds: float = field(default=60.0, validator=gt(0))
    # The client accepts no octet of a response, or sends none of its content, for this long.
    stall_seconds: float = field(default=30.0, validator=gt(0))
    # Below this many octets per second over slow_window_seconds the client is cut.
    slow_octets_per_second: float = field(default=1024.0, validator=ge(0))
    slow_window_seconds: float = field(default=60.0, validator=gt(0))
    head_octets: int = field(default=16 << 10, validator=ge(1024))
    fields: int = field(default=100, validator=ge(10))
    # Chunk extensions and trailers of one request's content, together.
    framing_octets: int = field(default=16 << 10, validator=ge(256))
    connections: int = field(default=10_000, validator=ge(1))
    connections_per_client: int = field(default=1_000, validator=ge(1))
    # A kept-alive connection is closed after so many requests, so that load can move.
    requests_per_connection: int = field(default=100_000, validator=ge(1))
    # Of one address, per worker: a job with an old token has a few, and whoever guesses has many.
    wrong_credentials_per_minute: int = field(default=30, validator=ge(1))
    drain_seconds: float = field(default=30.0, validator=ge(0))


@frozen
class PurgeSettings:
    """``[purge]``"""

    # Bounds the work of one request; more selectors go into a second one.
    selectors: int = field(default=10_000, validator=ge(1))
    body_octets: int = field(default=4 * MIB, validator=ge(1024))
    per_second: float = field(default=200.0, validator=gt(0))
    # One token in the hands of a runaway script must not use up the whole node's share.
    token_per_second: float = field(default=100.0, validator=gt(0))
    # Of Cache-Group-Invalidation, where a site shares it: a release touches a few groups, a flood would touch many.
    shared_groups_per_second: float = field(default=50.0, validator=gt(0))
    # Whoever waits holds a connection; what asks for longer is answered after this with the state reached.
    wait_longest_seconds: float = field(default=60.0, validator=gt(0))
    # Of the change feed: each holds one of the admin listener's connections.
    feed_listeners: int = field(default=64, validator=and_(ge(0), le(200)))
    # Soft is stale-while-revalidate, which hands the old page to one more client per node.
    fastly_soft: FastlySoft = FastlySoft.REVALIDATE


@frozen
class IndexSettings:
    """``[index]``: of all sites with profile "index"."""

    # The list of the largest index takes half of it. A page is in memory, several times, while it is rewritten.
    page_octets: int = field(default=80 * MIB, validator=ge(64 << 10))
    # Whoever has a cache before an index needs them: what is answered here, the origin never sees.
    downloads: bool = True
    # "" is none; else a path, relative to the configuration file. Lines as the public index writes them.
    download_log: str = ""
    # Page requests are many, and seldom wanted.
    log_pages: bool = False
    # Daily counts are kept a little longer than a year.
    downloads_days: int = field(default=400, validator=ge(1))


@frozen
class LogSettings:
    """``[log]``"""

    # "" is none; "-" is standard output; else a path, relative to the configuration file.
    access: str = ""
    # "json" lines or "combined".
    format: str = "json"


@frozen
class Config:
    """One node's whole configuration."""

    node: NodeSettings
    sites: tuple[SiteSettings, ...]
    listen: ListenSettings = field(factory=ListenSettings)
    tls: TLSSettings | None = None
    store: StoreSettings = field(factory=StoreSettings)
    upstream: UpstreamSettings = field(factory=UpstreamSettings)
    limits: LimitSettings = field(factory=LimitSettings)
    purge: PurgeSettings = field(factory=PurgeSettings)
    siblings: SiblingsSettings | None = None
    others: tuple[SiblingSettings, ...] = ()
    index: IndexSettings = field(factory=IndexSettings)
    log: LogSettings = field(factory=LogSettings)

    @property
    def counts_downloads(self) -> bool:
        """Is there an index whose downloads are counted?"""
        return self.index.downloads and any(site.profile is Profile.INDEX for site in self.sites)
