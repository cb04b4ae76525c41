"""Durable background work: the gRPC WorkerService and the Temporal workers behind it."""
