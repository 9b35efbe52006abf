"""ARC (RFC 8617): what those who forwarded a mail say that they saw, checked and added to.

mail = Mail(content)
chain = read_chain(mail)
keys = ...  # the TXT records of each of chain.key_names
result = verify_chain(mail, chain, keys, now_s)
sealer = Sealer(domain, selector, key, authserv_id)
content = sealer.seal(mail, chain, result.status, said, now_s) + content
"""

from mailyard.protocol.arc.chain import Chain, read_chain
from mailyard.protocol.arc.seal import Sealer
from mailyard.protocol.arc.verify import ChainResult, ChainStatus, verify_chain

__all__ = ["Chain", "ChainResult", "ChainStatus", "Sealer", "read_chain", "verify_chain"]
