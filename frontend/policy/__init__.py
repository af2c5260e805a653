"""What to do about stragglers, and which worker to ask: pure decisions, without asyncio, gRPC, clocks or logs."""
