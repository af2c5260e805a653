"""Generated protobuf and gRPC stubs of ``collage.v1``."""
