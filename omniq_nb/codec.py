"""STUB by the lead, to be overwritten by helper A."""
import cloudpickle, json, hashlib
class Codec:
    def __init__(self, key, *, strict=False, allow=()): self.key=key; self.strict=strict; self.allow=tuple(allow)
    def pack_function(self, f): return cloudpickle.dumps(f)
    def encode_call(self, packed, args, kwargs, *, context): return cloudpickle.dumps((packed,args,kwargs))
    def decode_call(self, payload, *, context):
        p,a,k=cloudpickle.loads(payload); return cloudpickle.loads(p),a,k
    def encode(self, value, *, context, prefer="msgpack"): return cloudpickle.dumps(value)
    def decode(self, payload, *, context): return cloudpickle.loads(payload)
    def encode_exception(self, e, *, context): return cloudpickle.dumps(e)
    def rebind(self, payload, *, old, new): return payload
def project_key(p): return b"k"*32
def to_json(v, limit=65536):
    try: return json.dumps(v)
    except Exception: return None
def arguments_json(f,a,k): return json.dumps({**{f"a{i}":str(x) for i,x in enumerate(a)},**k}, default=str)
def type_name(v): return type(v).__qualname__
Codec.to_json = lambda self, v: to_json(v)
Codec.type_name = lambda self, v: type_name(v)
