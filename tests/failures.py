"""Every kind of failure of an upstream, whoever adds one."""

from __future__ import annotations

from edgecache.words.errors import UpstreamFailed

PROXY_ERRORS = frozenset(
    (
        "dns_timeout",
        "dns_error",
        "destination_not_found",
        "destination_unavailable",
        "destination_ip_prohibited",
        "destination_ip_unroutable",
        "connection_refused",
        "connection_terminated",
        "connection_timeout",
        "connection_read_timeout",
        "connection_write_timeout",
        "connection_limit_reached",
        "tls_protocol_error",
        "tls_certificate_error",
        "tls_alert_received",
        "http_request_error",
        "http_request_denied",
        "http_response_incomplete",
        "http_response_header_section_size",
        "http_response_header_size",
        "http_response_body_size",
        "http_response_trailer_section_size",
        "http_response_trailer_size",
        "http_response_transfer_coding",
        "http_response_content_coding",
        "http_response_timeout",
        "http_upgrade_failed",
        "http_protocol_error",
        "proxy_internal_response",
        "proxy_internal_error",
        "proxy_configuration_error",
        "proxy_loop_detected",
    )
)
"""Types of errors that RFC 9209 §2.3 registers."""


def kinds(of: type[UpstreamFailed] = UpstreamFailed) -> list[type[UpstreamFailed]]:
    """:return: every error below ``of`` that the program knows, those of subclasses too."""
    found: list[type[UpstreamFailed]] = []
    for kind in of.__subclasses__():
        if kind.__module__.startswith("edgecache."):
            found += [kind, *kinds(kind)]
    # attrs makes a second class of each slotted one, and the first lives on until it is collected.
    return list({kind.__name__: kind for kind in found}.values())
