"""Certificates made for one test: good ones, expired ones, and those of another CA."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Pair:
    """Files of a certificate chain and its key, PEM."""

    cert: Path
    key: Path


class Authority:
    """A CA in a folder of its own; ``ca`` is its certificate's file."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._ca = folder, trustme.CA()
        self.ca = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.ca)

    def issue(self, file: str, *names: str, expired: bool = False) -> Pair:
        """A certificate for ``names`` (127.0.0.1 if none), in ``file``.pem; the same file again replaces it."""
        now = datetime.now(UTC)
        ends = now + timedelta(days=-1 if expired else 1)
        leaf = self._ca.issue_cert(*(names or ("127.0.0.1",)), not_before=now - timedelta(days=2), not_after=ends)
        pair = Pair(self._folder / f"{file}.pem", self._folder / f"{file}.key")
        pair.cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(pair.key)
        return pair
