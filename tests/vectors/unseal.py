#!/usr/bin/env python3
"""unseal.py FILE [IDENTITY]: what ftai sealed with aes256, packed as zstd packs it, on standard output, if all of it is as it was sealed.

Needs the program age, and Tink (pip install tink). Without an identity age asks for the passphrase.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile

from tink import json_proto_keyset_format, secret_key_access, streaming_aead

name, *identity = sys.argv[1:]
with open(name, "rb") as sealed, tempfile.TemporaryFile() as plain:
    front = sealed.read(18)
    if front[:16] != b"ftai-backup/1\0\0\0":
        sys.exit(f"{name}: not sealed with aes256")
    wrapped = sealed.read(int.from_bytes(front[16:], "big"))
    age = ["age", "--decrypt", *(["--identity", *identity] if identity else [])]
    keyset = subprocess.run(age, input=wrapped, stdout=subprocess.PIPE, check=True).stdout.decode()
    streaming_aead.register()
    key = json_proto_keyset_format.parse(keyset, secret_key_access.TOKEN).primitive(streaming_aead.StreamingAead)
    with key.new_decrypting_stream(sealed, hashlib.sha256(front + wrapped).digest()) as stream:
        shutil.copyfileobj(stream, plain, 1 << 20)
    # Only here is the last tag checked.
    plain.seek(0)
    shutil.copyfileobj(plain, sys.stdout.buffer, 1 << 20)
