"""The options of connections: dead peers are noticed soon, and ports are nobody else's."""

from __future__ import annotations

from collections.abc import Callable

import grpc.aio
import pytest

from collage.channels import channel_options, server_options


def test_a_dead_server_is_noticed_within_15_seconds_and_tried_every_second() -> None:
    options = dict(channel_options())
    assert options["grpc.keepalive_time_ms"] + options["grpc.keepalive_timeout_ms"] <= 15_000
    assert options["grpc.keepalive_permit_without_calls"] == 1
    assert options["grpc.http2.max_pings_without_data"] == 0, "no limit"
    assert options["grpc.max_reconnect_backoff_ms"] <= 1_000
    assert options["grpc.min_reconnect_backoff_ms"] <= options["grpc.max_reconnect_backoff_ms"]


def test_a_dead_client_is_noticed_within_a_minute_and_one_that_pings_is_welcome() -> None:
    options = dict(server_options())
    assert options["grpc.keepalive_time_ms"] + options["grpc.keepalive_timeout_ms"] <= 60_000
    assert options["grpc.keepalive_permit_without_calls"] == 1
    assert options["grpc.http2.max_ping_strikes"] == 0, "no limit"


@pytest.mark.parametrize("options", [channel_options, server_options])
def test_messages_are_bounded_in_both_directions(options: Callable[[int], list[tuple[str, int]]]) -> None:
    limits = dict(options(5_000))
    assert limits["grpc.max_receive_message_length"] == limits["grpc.max_send_message_length"] == 5_000


async def test_a_second_server_does_not_share_a_port() -> None:
    first, second = (grpc.aio.server(options=server_options()) for _ in range(2))
    port = first.add_insecure_port("127.0.0.1:0")
    await first.start()
    with pytest.raises(RuntimeError):
        second.add_insecure_port(f"127.0.0.1:{port}")
    await first.stop(None)
