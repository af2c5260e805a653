"""Connect by TLS with a token: python examples/secure_client.py frontend.example:50051 ca.pem token.txt shoe.png

`ca.pem` is the CA that signed the frontend's certificate. The token's file is read again when it changes.
"""

import sys
from pathlib import Path

from collage.client import ClientSecurity, SyncClient

address, ca, token, file = sys.argv[1:]
security = ClientSecurity(ca=Path(ca), token_file=Path(token))  # cert=, key=: for mutual TLS
with SyncClient(address, security=security) as client:
    print(client.predict(Path(file), timeout_s=1.0).label)
