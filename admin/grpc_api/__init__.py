"""The management service over gRPC: what `/api/v1/*` is over HTTP, on the same `Management`, with the same token.

`management.proto` is the contract, and `scripts/protos` makes `management_pb2*` of it. `services` says what each call
does, `calls` who may make one and how one is answered, `messages` what documents are as messages, and `server` listens.
Nothing here is imported before it is wanted (`grpc.enabled`): it takes 17 MB, of which 5 MB are no code.
"""

import os

# It is read when grpc is imported, which else writes lines of its own to standard error whenever a handshake fails.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
