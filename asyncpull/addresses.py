"""Where a host is: out there, or at an address that only means something where we are.

What a name leads to may change between our question and the connection; nothing here holds against that.
"""

from __future__ import annotations

import asyncio
import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_inside(addresses: Iterable[str]) -> bool:
    """Whether any of these is private, of this link or of this machine."""
    return any(not _bare(address).is_global for address in addresses)


def is_next_door(addresses: Iterable[str]) -> bool:
    """Whether any of these is of this machine or of this link, where clouds tell their machines secrets."""
    bare = map(_bare, addresses)
    return any(each.is_loopback or each.is_link_local or each.is_unspecified or each in _METADATA for each in bare)


async def addresses_of(hostname: str) -> Sequence[str]:
    """The addresses of a name; none where it has none that we can see."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(hostname, None)
    except (OSError, UnicodeError):
        return ()
    return [str(address[0]) for *_, address in found]


def _bare(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address that is meant: one of version 6 may carry one of version 4."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed in _NAT64:
            return ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
        return parsed.ipv4_mapped or parsed.sixtofour or parsed
    return parsed


# Of those, Amazon's and Alibaba's that are not link-local.
_METADATA = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "100.100.100.200")))
