"""TLS and bearer tokens, on both ends of a connection; files are read again when they change (rotated secrets)."""

from __future__ import annotations

import hmac
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

logger = logging.getLogger("collage")

HEADER = "authorization"
WANTS_TOKEN = "this server wants a valid token: authorization: Bearer TOKEN"  # noqa: S105 - none is in it
_SCHEME = "Bearer "
_OPEN_TO_ALL = "/grpc.health.v1.Health/"

Metadata = tuple[tuple[str, str], ...]
_SETTLED_S = 2.0  # two changes within the tick of a file system's clock look like one


class SecurityError(Exception):
    """Certificates, keys or tokens that cannot be used; the message is one line for the operator."""


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SecurityError(f"cannot read {file}: {error.strerror}") from None


class _Files:
    """Files whose contents may change at any time: replaced, or rewritten in place."""

    def __init__(self, *files: Path) -> None:
        """Read them; raises SecurityError."""
        self._files = files
        self._seen: object = None  # what the file system said of them when they were read last; None: read them again
        self.contents: tuple[bytes, ...] = ()
        self.changed()

    def changed(self) -> bool:
        """Whether the contents are others than before. Raises SecurityError if they cannot be read, once."""
        stamp, settled = self._stamp()
        if stamp == self._seen:
            return False
        self._seen = stamp
        contents = tuple(map(_read, self._files))
        if not settled:
            self._seen = None
        before, self.contents = self.contents, contents
        return contents != before

    def _stamp(self) -> tuple[object, bool]:
        """What changes when the files do, and whether a further change would be seen by it."""
        try:
            told = [file.stat() for file in self._files]
        except OSError:
            return (), True
        settled = all(time.time() - each.st_ctime > _SETTLED_S for each in told)
        return [(each.st_mtime_ns, each.st_ctime_ns, each.st_size, each.st_ino) for each in told], settled


def _check_ca(file: Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=file)
    except (ssl.SSLError, OSError):
        raise SecurityError(f"{file} holds no CA certificates in PEM form") from None


def _check_pair(cert: Path, key: Path) -> None:
    """Raises SecurityError if a certificate chain and a private key, both PEM, do not belong together."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=lambda: b"")
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "reason", None) or "not PEM"
        raise SecurityError(f"{cert} and {key} are not a certificate and its unencrypted key: {reason}") from None


class ServerTls:
    """A server's certificate, and the CA that clients' certificates must come from; without one clients need none.

    Changed files are taken up at the next handshake; files that do not fit together leave the old ones in use.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None) -> None:
        """Raises SecurityError."""
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._files = _Files(key, cert, *([client_ca] if client_ca else []))

    def credentials(self) -> grpc.ServerCredentials:
        """For ``add_secure_port``; raises SecurityError."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration(),
            self._changed,  # type: ignore[arg-type]  # None stands for no change
            require_client_authentication=self._client_ca is not None,
        )

    def context(self) -> ssl.SSLContext:
        """For servers by asyncio, HTTP/1.1; every handshake takes the files as they are then. Raises SecurityError."""
        current = self._checked_context()

        def renew(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
            nonlocal current
            if self._changed():
                current = self._checked_context()
            connection.context = current

        current.sni_callback = renew  # called in every handshake, with or without a name
        return current

    def _checked_context(self) -> ssl.SSLContext:
        self._configuration()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(self._cert, self._key)
        if self._client_ca:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cafile=self._client_ca)
        return context

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        key, chain, *ca = self._files.contents
        if self._client_ca:
            _check_ca(self._client_ca)
        _check_pair(self._cert, self._key)
        return grpc.ssl_server_certificate_configuration([(key, chain)], ca[0] if ca else None)

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        try:
            if not self._files.changed():
                return None
            configuration = self._configuration()
        except SecurityError as error:
            logger.warning("keeping the certificate in use: %s", error)
            return None
        logger.info("took up a new certificate from %s", self._cert)
        return configuration


class Tokens:
    """The tokens in a file, one a line: during a rotation the old and the new one."""

    def __init__(self, file: Path) -> None:
        """Read the file; raises SecurityError if there is no token in it."""
        self._file = file
        self._files = _Files(file)
        self._tokens = self._parse()

    def current(self) -> Sequence[bytes]:
        """All tokens, the one to send first. A file that cannot be read leaves the old ones in use."""
        try:
            if self._files.changed():
                self._tokens = self._parse()
        except SecurityError as error:
            logger.warning("keeping the tokens in use: %s", error)
        return self._tokens

    def accept(self, authorization: str) -> bool:
        """Whether the value of an authorization header has one of the tokens; takes as long for every wrong one."""
        scheme, _, token = authorization.partition(" ")
        given = token.strip().encode()
        matches = [hmac.compare_digest(given, known) for known in self.current()]  # all: in constant time
        return scheme.lower() == "bearer" and any(matches)

    def _parse(self) -> Sequence[bytes]:
        tokens = self._files.contents[0].split()
        if not tokens:
            raise SecurityError(f"{self._file} holds no token")
        if not all(_sendable(token.decode("latin-1")) for token in tokens):
            raise SecurityError(f"{self._file} holds a token that is not ASCII, or not printable")
        return tokens


def _sendable(token: str) -> bool:
    """Whether gRPC can send it."""
    return token.isascii() and token.isprintable()


class TokenCheck(grpc.aio.ServerInterceptor):
    """Refuses calls without a valid token as UNAUTHENTICATED. Health needs none, so that probes work."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._refusal: Any = grpc.stream_stream_rpc_method_handler(
            _refuse
        )  # reads no message, whatever the method takes

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Let a call through, or not."""
        if handler_call_details.method.startswith(_OPEN_TO_ALL) or self._valid(handler_call_details):
            return await continuation(handler_call_details)
        return self._refusal

    def _valid(self, details: grpc.HandlerCallDetails) -> bool:
        sent = next((value for name, value in details.invocation_metadata or () if name == HEADER), "")
        return self._tokens.accept(sent.decode("latin-1") if isinstance(sent, bytes) else sent)


async def _refuse(requests: object, context: Any) -> None:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, WANTS_TOKEN)


class ClientSecurity:
    """How a client proves who it is, and whom it trusts. Plaintext and no token if nothing is given.

    ``ca`` signs the servers' certificates (``tls`` without it: the system's CAs do); ``cert`` and ``key`` are the
    client's own, for mutual TLS. ``token``, or the first one in ``token_file``, goes with every call.
    """

    def __init__(
        self,
        *,
        tls: bool = False,
        ca: Path | None = None,
        cert: Path | None = None,
        key: Path | None = None,
        token: str = "",
        token_file: Path | None = None,
    ) -> None:
        """Read all files; raises SecurityError, which nothing does later."""
        if bool(cert) != bool(key):
            raise SecurityError("a client certificate needs its key, and the key its certificate")
        if not (isinstance(token, str) and _sendable(token)):
            raise SecurityError("a token is a text of printable ASCII characters")
        ca, cert, key = (Path(file) if file else None for file in (ca, cert, key))
        self.encrypted = tls or ca is not None or cert is not None
        self._ca, self._pair = ca, (cert, key) if cert and key else None
        self._files = _Files(*(file for file in (ca, key, cert) if file))
        self._version = 0
        self._credentials = self._read() if self.encrypted else None
        self._tokens = Tokens(Path(token_file)) if token_file else None
        self._metadata: Metadata = ((HEADER, _SCHEME + token),) if token else ()

    def stamp(self) -> int:
        """Changes when the certificates do; channels take up new ones only when they are made again."""
        try:
            if self._credentials is not None and self._files.changed():
                self._credentials = self._read()
                self._version += 1
        except SecurityError as error:
            logger.warning("keeping the certificates in use: %s", error)
        return self._version

    def _read(self) -> grpc.ChannelCredentials:
        contents = list(self._files.contents)
        ca = contents.pop(0) if self._ca else None
        if self._ca:
            _check_ca(self._ca)
        if self._pair:
            _check_pair(*self._pair)
        return grpc.ssl_channel_credentials(ca, *contents)

    def channel(self, address: str, options: Sequence[tuple[str, Any]], name: str | None = None) -> grpc.aio.Channel:
        """A channel to ``host:port``, whose certificate must be for ``name`` (the host if None)."""
        if (credentials := self._current()) is None:
            return grpc.aio.insecure_channel(address, options)
        override = [("grpc.ssl_target_name_override", name)] if name else []
        return grpc.aio.secure_channel(address, credentials, [*options, *override])

    def sync_channel(self, address: str, options: Sequence[tuple[str, Any]]) -> grpc.Channel:
        """A channel for code without asyncio."""
        if (credentials := self._current()) is None:
            return grpc.insecure_channel(address, options)
        return grpc.secure_channel(address, credentials, options)

    def _current(self) -> grpc.ChannelCredentials | None:
        """What a new channel needs: the files as they are now, or the last good ones; None for plaintext."""
        self.stamp()
        return self._credentials

    def metadata(self) -> Metadata:
        """What a call has to carry, now."""
        return ((HEADER, _SCHEME + self._tokens.current()[0].decode()),) if self._tokens else self._metadata


PLAINTEXT = ClientSecurity()
