"""What tests/witness.rs runs in the hosts of both networks, the lab's and the kernel's.

serve PORT...   echoes UDP on 5000, accepts on the ports named, takes and gives much data on 9000
sniff           what arrives, until standard input ends
probe LIST      the probes of a list, and what came of each
bulk HOST       much data both ways, and the segments it went in

A probe has a number: its packets leave from port (or with the ICMP identifier) 20000 + number, and their payload begins
with `W` and the number. A size is the length of the IP packet.
"""
import errno, hashlib, json, os, select, socket, struct, sys, threading

FIRST_PORT = 20000
BULK = 4_000_000


def mark(n):
    return b"W%03d" % n


def segments(s):
    """What TCP sends at most, has received at most, thinks of the path and announces."""
    words = struct.unpack_from("24I", s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232), 8)
    return {"sends": words[2], "receives": words[3], "path": words[13], "announces": words[19]}


# --- serve


def take_and_give(s):
    data = hashlib.sha256()
    left = BULK
    while left and (part := s.recv(min(left, 1 << 20))):
        data.update(part)
        left -= len(part)
    s.sendall(data.digest())
    s.sendall(bytes(range(250)) * (BULK // 250))
    s.sendall(json.dumps(segments(s)).encode())
    s.close()


def serve(ports):
    def listener(port, each):
        s = socket.create_server(("", port), backlog=64)
        def run():
            while True:
                each(s.accept()[0])
        threading.Thread(target=run, daemon=True).start()

    for port in ports:
        listener(port, lambda s: s.close())
    listener(9000, lambda s: threading.Thread(target=take_and_give, args=(s,), daemon=True).start())
    echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    echo.setsockopt(socket.SOL_IP, IP_MTU_DISCOVER, OMIT)
    echo.bind(("", 5000))

    def answer():
        while True:
            data, peer = echo.recvfrom(65535)
            echo.sendto(data, peer)

    threading.Thread(target=answer, daemon=True).start()
    print("going", flush=True)
    sys.stdin.read()


# --- sniff


def options(b):
    """TCP options in their order."""
    out = []
    while b and b[0] != 0:
        if b[0] == 1:
            out.append("nop")
            b = b[1:]
            continue
        out.append({2: "mss", 3: "scale", 4: "sack", 8: "time"}.get(b[0], str(b[0])))
        b = b[b[1] :]
    return "/".join(out)


class Sniffer:
    def __init__(self):
        self.seen = {}  # number of the probe -> what arrived, in its order
        self.first = {}  # (source, protocol, id) -> number
        self.later = []

    def packet(self, b):
        if len(b) < 20 or b[0] >> 4 != 4:
            return
        head = (b[0] & 15) * 4
        tos, length, ident, frag, ttl, proto = struct.unpack_from("!xBHHHBB", b)
        src, dst = socket.inet_ntoa(b[12:16]), socket.inet_ntoa(b[16:20])
        offset = (frag & 0x1FFF) * 8
        said = f"{src} to {dst} ttl {ttl}{' df' if frag & 0x4000 else ''}{f' tos {tos}' if tos else ''}"
        if frag & 0x3FFF:
            piece = f"{length}@{offset}{'+' if frag & 0x2000 else ''}"
        else:
            piece = str(length)
        if offset:
            self.later.append(((src, proto, ident), said, piece))
            return
        body = b[head:]
        n, what, kept = self.number(proto, body)
        if n is None:
            return
        self.first[(src, proto, ident)] = n
        self.note(n, f"{what} {said}{kept}", piece)

    def number(self, proto, body):
        if proto == 6 and len(body) >= 20:
            sport, dport = struct.unpack_from("!HH", body)
            if body[13] & 0x3F != 2:  # only what begins a connection
                return None, "", ""
            opts = body[20 : (body[12] >> 4) * 4]
            mss = struct.unpack_from("!H", opts, 2)[0] if opts[:1] == b"\2" else 0
            return dport, f"SYN mss {mss} {options(opts)}", port(sport, dport)
        if proto == 17 and len(body) >= 12 and body[8:9] == b"W":
            sport, dport = struct.unpack_from("!HH", body)
            n = int(body[9:12])
            return n, "udp", port(dport if sport == 5000 else sport, n)
        if proto == 1 and len(body) >= 12 and body[0] in (0, 8) and body[8:9] == b"W":
            n = int(body[9:12])
            what = "echo" if body[0] == 8 else "echo reply"
            return n, what, port(struct.unpack_from("!H", body, 4)[0], n)
        return None, "", ""

    def note(self, n, said, piece):
        lines = self.seen.setdefault(n, {})
        pieces = lines.setdefault(said, [])
        if piece not in pieces:
            pieces.append(piece)

    def end(self):
        for key, said, piece in self.later:
            n = self.first.get(key)
            if n is None:
                self.note(0, f"fragments of nothing: {said}", piece)
                continue
            for whole in self.seen[n]:
                if said in whole:
                    self.note(n, whole, piece)
        return {n: [f"{said} len {' '.join(pieces)}" for said, pieces in lines.items()] for n, lines in self.seen.items()}


def port(seen, n):
    """Whether the sender's own port (or identifier) is still the one it sent from; TCP probes are known by both ports."""
    return "" if seen == FIRST_PORT + n % 1000 else " from another port"


def sniff():
    s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    s.setblocking(False)
    sniffer = Sniffer()
    print("going", flush=True)
    ending = False
    while True:
        ready = select.select([s] if ending else [s, sys.stdin], [], [], 0 if ending else None)[0]
        if s in ready:
            try:
                data, where = s.recvfrom(65535)
            except BlockingIOError:
                continue
            if where[2] != 4 and where[0] != "lo":  # not what leaves
                sniffer.packet(data)
        elif ending:
            break
        else:
            ending = True
    print(json.dumps(sniffer.end()))


# --- probe


def refusal(s):
    """The first ICMP error in the socket's queue, and who sent it, in words."""
    error = first_error(s)
    if not isinstance(error, tuple):
        return error
    what, code, by, mtu = error
    return f"icmp {what}/{code} from {by}" + (f" mtu {mtu}" if (what, code) == (3, 4) else "")


def datagram(p, kind):
    n = p["n"]
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP if kind == "icmp" else 0)
    s.setblocking(False)
    s.setsockopt(socket.SOL_IP, IP_MTU_DISCOVER, PROBE if p["df"] else OMIT)
    s.setsockopt(socket.SOL_IP, IP_RECVERR, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    if p.get("ttl"):
        s.setsockopt(socket.SOL_IP, socket.IP_TTL, p["ttl"])
    if p.get("tos"):
        s.setsockopt(socket.SOL_IP, socket.IP_TOS, p["tos"])
    s.bind(("", FIRST_PORT + n))
    s.connect((p["to"], 0 if kind == "icmp" else p["port"]))
    body = mark(n) + bytes(p["size"] - 28 - 4)
    try:
        s.send((b"\x08\0\0\0\0\0\0\1" if kind == "icmp" else b"") + body)
    except OSError as e:
        return refusal(s) or f"own kernel: {errno.errorcode[e.errno]}"
    poll = select.poll()
    poll.register(s, select.POLLIN)
    if not poll.poll(p["wait"] * 1000):
        return "silence"
    if said := refusal(s):
        return said
    try:
        got = s.recv(65535)
    except OSError as e:
        return errno.errorcode[e.errno]
    same = got[8:] == body if kind == "icmp" else got == body
    return "answered" if same else "answered wrongly"


def tcp(p):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("", FIRST_PORT + p["port"] % 1000))
    s.settimeout(p["wait"])
    try:
        s.connect((p["to"], p["port"]))
    except TimeoutError:
        return "silence"
    except OSError as e:
        return errno.errorcode[e.errno]
    own = segments(s)
    return f"connected, sends {own['sends']} announces {own['announces']}"


def probe(probes):
    came = {}

    def one(p):
        try:
            came[p["n"]] = tcp(p) if p["kind"] == "tcp" else datagram(p, p["kind"])
        except Exception as e:
            came[p["n"]] = f"the probe failed: {e!r}"

    # What is learnt of a path changes what TCP announces on it, so TCP is first.
    for now in [True, False]:
        threads = [threading.Thread(target=one, args=(p,)) for p in probes if (p["kind"] == "tcp") == now]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    print(json.dumps(came))


# --- bulk


def bulk(host):
    s = socket.create_connection((host, 9000), 5)
    s.settimeout(20)
    announced = segments(s)
    data = os.urandom(BULK)
    s.sendall(data)
    digest = s.recv(32, socket.MSG_WAITALL)
    back = bytearray()
    while len(back) < BULK and (part := s.recv(BULK - len(back))):
        back += part
    theirs = bytearray()
    while part := s.recv(4096):
        theirs += part
    whole = digest == hashlib.sha256(data).digest() and back == bytes(range(250)) * (BULK // 250)
    print(json.dumps({
        "whole": whole, "here at first": announced["sends"], "here": segments(s), "there": json.loads(theirs),
    }))


def main():
    verb, *rest = sys.argv[1:]
    {"serve": lambda: serve([int(p) for p in rest]), "sniff": sniff, "probe": lambda: probe(json.loads(rest[0])), "bulk": lambda: bulk(*rest)}[verb]()


main()
