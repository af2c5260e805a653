"""TLS and bearer tokens, on both ends of a connection; files are read again when they change (rotated secrets)."""

from __future__ import annotations

import hmac
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

logger = logging.getLogger("collage")

HEADER = "authorization"
_SCHEME = "Bearer "
_OPEN_TO_ALL = "/grpc.health.v1.Health/"

Metadata = tuple[tuple[str, str], ...]
_Stamp = tuple[float, ...]


class SecurityError(Exception):
    """Certificates, keys or tokens that cannot be used; the message is one line for the operator."""


def _stamp(*files: Path | None) -> _Stamp:
    """When the files were changed last; any two contents that follow each other have different stamps."""
    try:
        return tuple(file.stat().st_mtime for file in files if file)
    except OSError:
        return ()


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SecurityError(f"cannot read {file}: {error.strerror}") from None


def _read_ca(file: Path) -> bytes:
    content = _read(file)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=file)
    except (ssl.SSLError, OSError):
        raise SecurityError(f"{file} holds no CA certificates in PEM form") from None
    return content


def _read_pair(cert: Path, key: Path) -> tuple[bytes, bytes]:
    """A private key and its certificate chain, PEM; SecurityError if they do not belong together."""
    pair = _read(key), _read(cert)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=lambda: b"")
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "reason", None) or "not PEM"
        raise SecurityError(f"{cert} and {key} are not a certificate and its unencrypted key: {reason}") from None
    return pair


class ServerTls:
    """A server's certificate, and the CA that clients' certificates must come from; without one clients need none.

    Changed files are taken up at the next handshake; files that do not fit together leave the old ones in use.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None) -> None:
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._seen: _Stamp = ()

    def credentials(self) -> grpc.ServerCredentials:
        """For ``add_secure_port``; raises SecurityError."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration(),
            self._changed,  # type: ignore[arg-type]  # None stands for no change
            require_client_authentication=self._client_ca is not None,
        )

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        self._seen = _stamp(self._cert, self._key, self._client_ca)
        ca = _read_ca(self._client_ca) if self._client_ca else None
        return grpc.ssl_server_certificate_configuration([_read_pair(self._cert, self._key)], ca)

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        if _stamp(self._cert, self._key, self._client_ca) == self._seen:
            return None
        try:
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
        self._seen = _stamp(file)
        self._tokens = self._load()

    def current(self) -> Sequence[bytes]:
        """All tokens, the one to send first. A file that cannot be read leaves the old ones in use."""
        if (seen := _stamp(self._file)) != self._seen:
            self._seen = seen
            try:
                self._tokens = self._load()
            except SecurityError as error:
                logger.warning("keeping the tokens in use: %s", error)
        return self._tokens

    def _load(self) -> Sequence[bytes]:
        tokens = _read(self._file).split()
        if not tokens:
            raise SecurityError(f"{self._file} holds no token")
        if not all(token.isascii() for token in tokens):
            raise SecurityError(f"{self._file} holds a token that is not ASCII")
        return tokens


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
        scheme, _, token = (sent.decode("latin-1") if isinstance(sent, bytes) else sent).partition(" ")
        given = token.strip().encode()
        matches = [hmac.compare_digest(given, known) for known in self._tokens.current()]  # all: in constant time
        return scheme.lower() == "bearer" and any(matches)


async def _refuse(requests: object, context: Any) -> None:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "this server wants a valid token: authorization: Bearer TOKEN")


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
        self.encrypted = tls or ca is not None or cert is not None
        self._files = ca, cert, key
        self._seen = self.stamp()
        self._credentials = self._read() if self.encrypted else None
        self._tokens = Tokens(token_file) if token_file else None
        self._metadata: Metadata = ((HEADER, _SCHEME + token),) if token else ()

    def stamp(self) -> _Stamp:
        """Changes when the files do; channels take up new ones only when they are made again."""
        return _stamp(*self._files)

    def _read(self) -> grpc.ChannelCredentials:
        ca, cert, key = self._files
        pair = _read_pair(cert, key) if cert and key else (None, None)
        return grpc.ssl_channel_credentials(_read_ca(ca) if ca else None, *pair)

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
        if self._credentials is not None and (seen := self.stamp()) != self._seen:
            self._seen = seen
            try:
                self._credentials = self._read()
            except SecurityError as error:
                logger.warning("keeping the certificates in use: %s", error)
        return self._credentials

    def metadata(self) -> Metadata:
        """What a call has to carry, now."""
        return ((HEADER, _SCHEME + self._tokens.current()[0].decode()),) if self._tokens else self._metadata


PLAINTEXT = ClientSecurity()
