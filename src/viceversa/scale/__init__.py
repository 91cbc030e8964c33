"""Many machines: pictures that lie in object storage, and the engine (Ray) that works on them."""
