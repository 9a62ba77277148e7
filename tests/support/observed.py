"""The probes of one instance for tests/observed.rs: all at once, each from a port (or ICMP identifier) of its own.

Says `NUMBER WHAT` as soon as something comes of a probe: `answered`, `refused` (a TCP reset), `icmp TYPE/CODE`, or what
its own kernel said. Of what stays silent it says nothing. Ends with its standard input.
"""
import errno, json, selectors, socket, sys


def refusal(s):
    """The first ICMP error in the socket's queue, in words."""
    error = first_error(s)
    return "icmp {}/{}".format(*error) if isinstance(error, tuple) else error


def begin(p):
    tcp, icmp = p["proto"] == "tcp", p["proto"] == "icmp"
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM, socket.IPPROTO_ICMP if icmp else 0)
    s.setblocking(False)
    s.setsockopt(socket.SOL_IP, socket.IP_TTL, p["ttl"])
    if not tcp:
        s.setsockopt(socket.SOL_IP, IP_RECVERR, 1)
        # DF, and by no path that was learnt from other probes.
        s.setsockopt(socket.SOL_IP, IP_MTU_DISCOVER, PROBE)
    s.bind(("", p["from_port"]))
    at = (p["to"], 0 if icmp else p["port"])
    if tcp:
        number = s.connect_ex(at)
        if number not in (0, errno.EINPROGRESS):
            raise OSError(number, "connect")
    else:
        s.connect(at)
        body = bytes(p["size"] - 33) + b"probe"
        s.send(b"\x08\0\0\0\0\0\0\1" + body if icmp else body)
    return s


def result(s, p):
    """What came of it."""
    if p["proto"] == "tcp":
        number = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number == errno.ETIMEDOUT:
            return None
        return {0: "answered", errno.ECONNREFUSED: "refused"}.get(number) or f"own kernel: {errno.errorcode[number]}"
    said = refusal(s)
    if said:
        return said
    try:
        got = s.recv(65535)
    except OSError as e:
        return refusal(s) or f"own kernel: {errno.errorcode[e.errno]}"
    return "answered" if got.endswith(b"probe") else "answered wrongly"


def main():
    events = selectors.DefaultSelector()
    for p in json.loads(sys.argv[1]):
        try:
            s = begin(p)
        except OSError as e:
            print(p["n"], f"own kernel: {errno.errorcode[e.errno]}", flush=True)
            continue
        events.register(s, selectors.EVENT_WRITE if p["proto"] == "tcp" else selectors.EVENT_READ, p)
    events.register(sys.stdin, selectors.EVENT_READ, None)
    kept = []
    while True:
        for key, _ in events.select():
            if key.data is None:
                return
            said = result(key.fileobj, key.data)
            events.unregister(key.fileobj)
            # Open to the end: what its closing sends is no probe.
            kept.append(key.fileobj)
            if said:
                print(key.data["n"], said, flush=True)


main()
