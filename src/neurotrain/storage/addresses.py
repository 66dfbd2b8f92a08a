"""Which addresses of the network may be asked: public ones, and others only where their host is allowed by name."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
"""IPv6 addresses that a translator turns into the IPv4 address of their last four bytes (RFC 6052)."""

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_public(address: str) -> bool:
    """Whether an address belongs to the public internet.

    Args:
        address: numeric IPv4 or IPv6 address, as a resolver returns it.

    Returns:
        False for private, loopback, link-local, shared, reserved, multicast and unspecified addresses, also where an
        IPv6 address carries such an IPv4 address inside (mapped, 6to4, Teredo, NAT64).

    Example:
        >>> [is_public(address) for address in ("93.184.215.14", "127.0.0.1", "::ffff:10.0.0.1", "169.254.169.254")]
        [True, False, False, False]
    """
    return all(part.is_global and not part.is_multicast for part in _inside(address))


def _inside(address: str) -> list[IpAddress]:
    """Return the address itself, or those that it carries."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv4Address):
        return [parsed]
    if parsed.ipv4_mapped is not None:
        return [parsed.ipv4_mapped]
    if parsed in _TRANSLATED:
        return [ipaddress.IPv4Address(parsed.packed[-4:])]
    if int(parsed) >> 32 == 0 and int(parsed) > 1:  # IPv4-compatible, deprecated, still understood here and there
        return [parsed, ipaddress.IPv4Address(parsed.packed[-4:])]
    carried = [*(parsed.teredo or ()), *([parsed.sixtofour] if parsed.sixtofour is not None else [])]
    return [parsed, *carried]


class RefusedAddress(Exception):  # noqa: N818 - no error of the network: libraries must not treat it as one
    """A host's address may not be asked.

    Args:
        reason: which, and why.
    """


class AddressGuard:
    """Decides about hosts and about the addresses that they resolve to.

    A name is judged by the address that is connected to, in the moment of connecting, so that neither another way of
    writing an address (decimal, octal, mapped) nor a name that changes its address gets around it.

    Args:
        allowed_hosts: names, or numeric addresses, of hosts that may lie in a private network.

    Example:
        >>> guard = AddressGuard(("files.internal",))
        >>> guard.check("files.internal", ["10.0.0.7"])
        >>> guard.check("other.example", ["10.0.0.7"])
        Traceback (most recent call last):
        neurotrain.storage.addresses.RefusedAddress: other.example is at 10.0.0.7, which is no public address; ...
    """

    def __init__(self, allowed_hosts: Sequence[str]) -> None:
        self._names = {_plain(host) for host in allowed_hosts}
        self._addresses: set[str] = set()

    def check(self, host: str, addresses: Sequence[str]) -> None:
        """Refuse a host one of whose addresses is not public, unless its name is allowed.

        Raises:
            RefusedAddress: if it is refused.
        """
        if _plain(host) in self._names:
            self._addresses.update(addresses)
            return
        for address in addresses:
            if not is_public(address):
                raise RefusedAddress(
                    f"{host} is at {address}, which is no public address; if it may be read, name it in allowed_hosts"
                )

    def check_connection(self, address: str) -> None:
        """Refuse a connection to an address that is not public and belongs to no allowed name.

        Raises:
            RefusedAddress: if it is refused.
        """
        if address not in self._addresses and _plain(address) not in self._names:
            self.check(address, [address])


def _plain(host: str) -> str:
    """One way of writing a host's name."""
    return host.strip("[]").rstrip(".").lower()
