"""The asyncio side of workers: where they are, how to talk to them, which are ready."""
